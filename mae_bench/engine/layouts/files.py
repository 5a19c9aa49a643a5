"""The tensors of a file, read without running code that is in it."""

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mae_bench.engine.layouts.names import State
from mae_bench.errors import InputError

WRAPPERS = ("model", "state_dict", "model_state_dict", "network", "net")
SCALAR = np.float64(0).__reduce__()[0]
# Training scripts keep their arguments and a score beside the weights; reading these only makes such values.
PLAIN_VALUES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    (SCALAR, "numpy.core.multiarray.scalar"),
    (SCALAR, "numpy._core.multiarray.scalar"),
]
ZIP, PICKLE = b"PK", b"\x80"


def read_tensors(path: Path) -> State:
    """All tensors of a safetensors file, or of a checkpoint that PyTorch can read without running code.

    Names are without the `module.` of data-parallel training; fractions are in single precision.

    Raises:
        InputError: missing, damaged, without tensors, or with more in it than values.
    """
    if not path.is_file():
        raise InputError(f"{path}: missing")
    with path.open("rb") as file:
        head = file.read(9)
    if not _is_safetensors(path, head) and not head.startswith((ZIP, PICKLE)):
        raise InputError(f"{path}: not a weights file")
    try:
        found: Any = load_file(path) if _is_safetensors(path, head) else _load_checkpoint(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused: it holds more than tensors{_asked_for(error)}, and reading that can run its code",
            "if you trust it, load it where it was made, and save its tensors alone: safetensors.torch.save_file",
        ) from error
    except Exception as error:  # damaged bytes make the readers raise whatever they stumble over
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a readable weights file: {why}") from error
    state = _unwrapped(found)
    if not state:
        raise InputError(f"{path}: no named tensors in it")
    return {name.removeprefix("module."): _single(value) for name, value in state.items()}


def _is_safetensors(path: Path, head: bytes) -> bool:
    """By its name, or by its beginning: the length of a header, and the header's first brace."""
    return path.suffix == ".safetensors" or head[8:] == b"{"


def _load_checkpoint(path: Path) -> Any:
    with torch.serialization.safe_globals(PLAIN_VALUES), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it cannot read it refuses, which is told above
        return torch.load(path, map_location="cpu", weights_only=True)


def _asked_for(error: Exception) -> str:
    """What the pickle wanted to call. PyTorch's own advice is how to run it, which is not ours."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f" ({found[1]})" if found else ""


def _unwrapped(found: Any) -> State:
    """The tensors by name, out of the dictionaries that training scripts put them in."""
    while isinstance(found, Mapping):
        inner = next((name for name in WRAPPERS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            return {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}
        found = found[inner]
    return {}


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
