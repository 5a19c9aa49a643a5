"""Writes small files as MedMNIST publishes them, with numpy alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNTS = {"train": 12, "val": 6, "test": 8}


def arrays(spatial: tuple[int, ...], highest: int, columns: int = 1, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random images and labels from 0 to `highest`, every label in turn on every side. `spatial` with the colours."""
    rng = np.random.default_rng(seed)
    found: dict[str, NDArray[Any]] = {}
    for side, count in COUNTS.items():
        found[f"{side}_images"] = rng.integers(0, 256, (count, *spatial), np.uint8)
        labels = np.arange(count * columns) % (highest + 1)
        found[f"{side}_labels"] = labels.reshape(count, columns).astype(np.uint8)
    return found


def write_medmnist(path: Path, content: Mapping[str, NDArray[Any]], *, compressed: bool = True) -> None:
    """Write one npz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, **content)
