"""Where and how to compute: CUDA with bf16 when it is there, else the CPU."""

import contextlib
import ctypes
import gc
import os
import platform
import resource
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from mae_bench.engine.onednn import preferred

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


@cache
def keep_imports() -> None:
    """Leave what is imported by now out of every search for garbage; accelerate searches after each stage."""
    gc.collect()  # what is garbage now would stay for good
    gc.freeze()


@cache
def keep_freed_memory() -> None:
    """Let glibc reuse large freed tensors: a training step frees and asks for the same sizes again and again, and
    handing them back to the kernel each time costs a page fault per 4 KiB.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def make_accelerator(trackers: Sequence[str] = (), folder: str | os.PathLike[str] | None = None) -> Accelerator:
    """An accelerator for this process: bf16 autocast on CUDA devices that have it, else full precision.

    `MAE_BENCH_DEVICE=cpu` keeps a GPU out of it.
    """
    keep_imports()
    keep_freed_memory()
    cpu = os.environ.get("MAE_BENCH_DEVICE") == "cpu" or not torch.cuda.is_available()
    if "mlflow" in trackers and folder is not None:
        # Its own default is a database in the current folder; runs belong into the store.
        Path(folder).mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{Path(folder, 'mlflow.db').absolute()}")
    bf16 = not cpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if bf16 else "no",
        log_with=list(trackers) or None,
        project_dir=None if folder is None else str(folder),
        # The others wait while the main process scores the test cases, which can take longer than NCCL's ten minutes.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )


def device_name(device: torch.device) -> str:
    """The device in words, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak_memory(device: torch.device) -> None:
    """Start anew with the highest use of memory: a process may do one stage after the other."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # where there is no such file, the peak is that of the whole process
        CLEAR.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Highest use since it was last forgotten: of the GPU's memory, else of this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError, StopIteration):
        lines = STATUS.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def environment(accelerator: Accelerator, compiled: bool) -> dict[str, Any]:
    """What the last bits of the numbers may depend on besides the specification."""
    from importlib.metadata import version

    names = ("torch", "timm", "monai", "numpy", "scipy", "nibabel", "accelerate")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "onednn": preferred(),
        "compiled": compiled,
        "packages": {name: version(name) for name in names},
    }
