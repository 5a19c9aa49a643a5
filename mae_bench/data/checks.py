"""What makes a case unusable, beyond files that cannot be read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mae_bench.data.nifti import same_grid
from mae_bench.interfaces import RawCase, RawImage
from mae_bench.task import Task


def faults(raw: RawImage, case: RawCase, task: Task) -> list[str]:
    """Every fault of a case, each naming its file. Empty when the case can be used."""
    image = str(case.images[0])
    found = []
    if len(raw.image) != len(task.channels):
        found.append(f"{image}: {len(raw.image)} channels, expected {len(task.channels)} ({', '.join(task.channels)})")
    if raw.image.ndim != task.ndim + 1:
        found.append(f"{image}: {raw.image.ndim - 1} spatial dimensions, expected {task.ndim}")
    for channel, values in enumerate(raw.image):
        name = str(case.images[channel]) if len(case.images) > 1 else f"{image} (channel {channel})"
        with np.errstate(over="ignore"):
            # NaN comes through min and max; as float32, because that is what they will be.
            low, high = np.float32(values.min()), np.float32(values.max())
            if not np.isfinite([low, high]).all():
                bad = int((~np.isfinite(values.astype(np.float32))).sum())
                found.append(f"{name}: {bad} voxels are NaN or infinite")
                continue
        if low == high:
            found.append(f"{name}: constant image, every voxel is {low:g}")
        elif _constant_inside(values):
            found.append(f"{name}: constant image, every voxel that is not 0 is {low or high:g}")
    if raw.label is not None:
        found += _label_faults(raw, raw.label, case, task)
    return found


def _constant_inside(values: NDArray[Any]) -> bool:
    """Whether all non-zero voxels are equal; a thin sample settles it for any real image."""
    for some in (values.ravel(order="K")[:: max(1, values.size // 1000)], values):
        inside = some[some != 0]
        if len(inside) and inside.min() != inside.max():
            return False
    return True


def _label_faults(raw: RawImage, label: NDArray[Any], case: RawCase, task: Task) -> list[str]:
    name = str(case.label)
    if label.shape != raw.image.shape[1:]:
        return [f"{name}: shape {label.shape} differs from that of its image {raw.image.shape[1:]}"]
    found = []
    if raw.affine is not None and raw.label_affine is not None and not same_grid(raw.affine, raw.label_affine):
        found.append(f"{name}: affine differs from that of its image")
    if label.dtype.kind == "f":
        if not np.isfinite(label).all():
            return [*found, f"{name}: labels are NaN or infinite"]
        if (label != np.round(label)).any():
            odd = float(label[label != np.round(label)].flat[0])
            return [*found, f"{name}: labels are not whole numbers, for example {odd:g}"]
    strange = sorted({int(value) for value in _values(label)} - set(task.labels) - {0})
    if strange:
        declared = ", ".join(f"{value} {text}" for value, text in sorted(task.labels.items()))
        found.append(f"{name}: label values {strange[:5]} are not declared ({declared})")
    return found


def _values(label: NDArray[Any]) -> NDArray[Any]:
    """Distinct values; counting is ten times as fast as sorting for the usual small ones."""
    if float(label.min()) >= 0 and float(label.max()) < 256:
        return np.nonzero(np.bincount(label.ravel(order="K").astype(np.uint8), minlength=256))[0]
    return np.unique(label)
