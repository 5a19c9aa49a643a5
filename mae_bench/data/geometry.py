"""Orientation and spacing, forth and back: all on axis-aligned grids, so trilinear resampling is separable.

Positions follow voxel centres: voxel j of a grid with spacing t lies at j * t mm from the first voxel's centre, on
every grid of a case. A finer grid whose points contain the native ones (2 mm to 1 mm) therefore loses nothing.
"""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def orientation_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each voxel axis: the closest RAS axis and its direction, (3, 2), as nibabel writes it."""
    return np.asarray(nib.io_orientation(affine))


def to_ras(array: Array, orientation: NDArray[np.float64]) -> Array:
    """Reorder and flip the last three axes to right, anterior, superior. A view."""
    order = np.argsort(orientation[:, 0])
    lead = array.ndim - 3
    array = array.transpose(*range(lead), *(lead + order))
    flipped = tuple(lead + axis for axis, source in enumerate(order) if orientation[source, 1] < 0)
    return np.flip(array, flipped)


def from_ras(array: Array, orientation: NDArray[np.float64]) -> Array:
    """Undo `to_ras`. A view."""
    order = np.argsort(orientation[:, 0])
    lead = array.ndim - 3
    flipped = tuple(lead + axis for axis, source in enumerate(order) if orientation[source, 1] < 0)
    return np.flip(array, flipped).transpose(*range(lead), *(lead + np.argsort(order)))


def resampled_size(size: int, spacing: float, target: float) -> int:
    """Voxels at `target` mm that cover the centres of `size` voxels at `spacing` mm."""
    return int(np.ceil((size - 1) * spacing / target - 1e-3)) + 1


def resample(
    array: Array, ratio: tuple[float, ...], shape: tuple[int, ...], *, nearest: bool = False, edges: bool = False
) -> Array:
    """Sample the last axes of `array` at index `ratio * j` for j in `shape`, clamped at the border.

    Args:
        array: (..., *spatial). Floating for linear sampling; any dtype for `nearest`.
        ratio: target spacing over source spacing, per spatial axis.
        shape: target size per spatial axis.
        edges: let the outer edges of both grids coincide, not the centres of their first voxels.
    """
    lead = array.ndim - len(shape)
    # Shrinking axes first keeps the intermediate arrays small.
    for axis in sorted(range(len(shape)), key=lambda axis: shape[axis] / array.shape[lead + axis]):
        size = array.shape[lead + axis]
        if abs(ratio[axis] - 1) < 1e-3 and shape[axis] == size:
            continue
        first = (ratio[axis] - 1) / 2 if edges else 0.0
        position = np.clip(first + np.arange(shape[axis]) * ratio[axis], 0, size - 1)
        if nearest:
            # Half-way points go down: with a finer target grid that keeps each voxel's own copies together.
            array = np.take(array, np.ceil(position - 0.5 - 1e-6).astype(np.intp), axis=lead + axis)
            continue
        below = np.minimum(position.astype(np.intp), max(size - 2, 0))
        weight = (position - below).astype(array.dtype).reshape(-1, *[1] * (array.ndim - lead - axis - 1))
        low = np.take(array, below, axis=lead + axis)
        high = np.take(array, np.minimum(below + 1, size - 1), axis=lead + axis)
        high -= low
        high *= weight
        high += low
        array = high
    return array


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box that holds every true voxel; the whole array when there is none."""
    if not mask.any():
        return tuple(slice(0, size) for size in mask.shape)
    box = []
    for axis in range(mask.ndim):
        (hit,) = np.nonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)
