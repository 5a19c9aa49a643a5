"""Training state on disk: one file, replaced atomically, read without pickle."""

import contextlib
import io
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from mae_bench.store import write_bytes


def save(path: Path, state: dict[str, Any]) -> None:
    """Write the state whole or not at all."""
    # Through memory, so that a full disk is an OSError and not a failure inside PyTorch's writer.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getbuffer())


def load(path: Path) -> dict[str, Any] | None:
    """Read the state, or None when there is none."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


class StopFlag:
    """Set by SIGTERM and SIGINT, so that the loop can finish its step and save. A second signal acts at once."""

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.received:
            raise KeyboardInterrupt
        self.received = True


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Watch for SIGTERM and SIGINT while the block runs; outside the main thread nothing can be watched."""
    flag = StopFlag()
    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):
                before[number] = signal.signal(number, flag)
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
