"""The process: whether it is the first of its launch (accelerate, torchrun), and its collector; without torch."""

import contextlib
import gc
import os
from collections.abc import Iterator


def is_first_process() -> bool:
    """Whether this process speaks and writes for all of its launch; true when there is no other."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """Look for no garbage in here: for work whose objects all stay."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
