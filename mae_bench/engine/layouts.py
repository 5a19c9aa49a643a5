"""Reads encoder weights in the layouts they are given out in, and says which one it was."""

from pathlib import Path

from mae_bench.engine.transfer import Weights
from mae_bench.engine.weights import load_weights


def read_weights(path: Path) -> Weights:
    """Read a weights file of any known layout."""
    return load_weights(path)
