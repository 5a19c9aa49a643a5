"""Dice and HD95 of one case, with every empty case decided in the open.

| truth | prediction | `score`               | `ignore`    |
|-------|------------|-----------------------|-------------|
| empty | empty      | Dice 1, HD95 0        | NaN, NaN    |
| empty | something  | Dice 0, HD95 diagonal | NaN, NaN    |
| some  | empty      | Dice 0, HD95 diagonal | Dice 0, NaN |

The diagonal is that of the whole image: the farthest that two voxels can lie apart, so that missing a region is never
better than any answer. `ignore` is what MONAI's defaults amount to, and what the paper's code does (PAPER D5).
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray

from mae_bench.data.geometry import bounding_box

Mask = NDArray[np.bool_]
Empty = Literal["score", "ignore"]


def dice(prediction: Mask, truth: Mask, empty: Empty = "score") -> float:
    """Overlap 2 |A and B| / (|A| + |B|) of two masks of one shape; see the table above."""
    size = int(prediction.sum()) + int(truth.sum())
    if not truth.any() and empty == "ignore":
        return float("nan")
    if size == 0:
        return 1.0
    return 2.0 * int((prediction & truth).sum()) / size


def hd95(prediction: Mask, truth: Mask, spacing: Sequence[float], empty: Empty = "score") -> float:
    """95th percentile of the distances between the two surfaces, the larger of both directions.

    Args:
        prediction, truth: masks of one shape.
        spacing: voxel size per axis; the result is in its unit.
    """
    if not truth.any() or not prediction.any():
        if empty == "ignore":
            return float("nan")
        if truth.any() == prediction.any():
            return 0.0
        return float(np.linalg.norm(np.multiply(truth.shape, spacing)))
    # A margin of one voxel, clipped at the image: what touches the image's edge has its surface there.
    box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in bounding_box(np.logical_or(prediction, truth)))
    pair = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in (prediction, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it passes itself
        distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
    return float(distance)
