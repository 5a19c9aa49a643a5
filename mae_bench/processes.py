"""Several processes of one launch (accelerate, torchrun), told apart without importing torch."""

import os


def is_first_process() -> bool:
    """Whether this process speaks and writes for all of its launch; true when there is no other."""
    return os.environ.get("RANK", "0") == "0"
