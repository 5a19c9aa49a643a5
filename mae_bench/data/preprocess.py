"""What happens to the voxels of a case between its file and its prepared array, and the way back for predictions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mae_bench.data import geometry
from mae_bench.data.prepared import POINTS, CaseFacts
from mae_bench.interfaces import RawImage
from mae_bench.task import Intensity, Preprocessing


def apply_preprocessing(
    raw: RawImage, preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None, dict[str, Any]]:
    """Reorient to RAS (what has an affine), crop to the foreground, resample, normalise.

    Returns:
        image (C, *shape), label (*shape) or None, and the geometry fields of CaseFacts.
    """
    image, label, spacing = raw.image, raw.label, np.ones(raw.image.ndim - 1)
    if raw.affine is not None:
        orientation = geometry.orientation_of(raw.affine)
        image = geometry.to_ras(image, orientation)
        label = None if label is None else geometry.to_ras(label, orientation)
        spacing[orientation[:, 0].astype(int)] = np.linalg.norm(raw.affine[:3, :3], axis=0)
    native_shape = image.shape[1:]
    box = tuple(slice(0, size) for size in native_shape)
    if preprocessing.crop_to_foreground:
        box = geometry.bounding_box(_foreground(image, preprocessing.intensity))
    image = np.ascontiguousarray(image[(slice(None), *box)], dtype=np.float32)
    label = None if label is None else np.ascontiguousarray(label[box]).astype(np.uint8)
    cropped = image.shape[1:]
    if preprocessing.size is not None:
        target = spacing * np.divide(cropped, preprocessing.size)
        shape: tuple[int, ...] = preprocessing.size
        image = _resize(image, preprocessing.size)
        label = None if label is None else _resize_label(label, preprocessing.size)
    else:
        target = np.asarray(preprocessing.spacing if preprocessing.spacing is not None else spacing, float)
        # A hair's difference in spacing (0.99999 mm) is rounding in the file, not another grid.
        target = np.where(np.abs(target / spacing - 1) < 1e-3, spacing, target)
        shape = tuple(map(geometry.resampled_size, cropped, spacing, target))
        ratio = tuple(float(x) for x in target / spacing)
        image = geometry.resample(image, ratio, shape)
        label = None if label is None else geometry.resample(label, ratio, shape, nearest=True)
    normalise(image, preprocessing.intensity)
    return (
        image,
        label,
        {
            "native_shape": native_shape,
            "native_spacing": tuple(float(x) for x in spacing),
            "start": tuple(part.start for part in box),
            "cropped": cropped,
            "shape": shape,
            "spacing": tuple(float(x) for x in target),
        },
    )


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bring a 2-D image (C, H, W) to `size`, with a filter as wide as a new pixel, so that shrinking does not alias."""
    planes = [Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR) for plane in image]
    return np.stack([np.asarray(plane, np.float32) for plane in planes])


def _resize_label(label: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))


def _foreground(image: NDArray[Any], intensity: Intensity) -> NDArray[np.bool_]:
    """Where any channel of (C, *spatial) is more than air."""
    inside = image != 0 if intensity.kind == "zscore" else image > (intensity.low or 0.0)
    return np.asarray(inside.any(axis=0))


def normalise(image: NDArray[np.float32], intensity: Intensity) -> None:
    """Bring raw intensities to network input, in place; see `Intensity`."""
    if intensity.kind == "window":
        assert intensity.low is not None
        assert intensity.high is not None
        np.clip(image, intensity.low, intensity.high, out=image)
        image -= intensity.low
        image /= intensity.high - intensity.low
    if intensity.kind == "equalize":
        for channel in image:
            _equalize(channel)
    if intensity.kind != "zscore":
        image -= np.float32(intensity.mean)
        image /= np.float32(intensity.std)
        return
    for channel in image:
        inside = channel != 0
        values = channel[inside]
        if len(values):
            # The mean of many float32 is taken in float64; float16 storage needs no more than float32 after.
            mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
            channel[inside] = (values - np.float32(mean)) / np.float32(deviation or 1.0)


def _equalize(channel: NDArray[np.float32]) -> None:
    """Replace every value by the share of voxels below it, among 256 grey levels, scaled to [0, 1]; in place."""
    low, high = channel.min(), channel.max()
    levels = np.rint((channel - low) * (np.float32(255) / (high - low or np.float32(1)))).astype(np.uint8)
    total = np.cumsum(np.bincount(levels.ravel(), minlength=256))
    below = total[levels.min()]
    table = (total - below) / max(1, total[-1] - below)
    channel[:] = np.clip(table, 0, 1).astype(np.float32)[levels]


def crop_centres(
    image: NDArray[np.float32], label: NDArray[np.uint8] | None, case: str
) -> tuple[NDArray[np.int16], dict[str, tuple[int, int]]]:
    """Up to POINTS random voxels of the foreground and of each label value, with the rows that belong to each.

    Planes without labels need none: their crops lie anywhere.
    """
    if image.ndim == 3 and label is None:
        return np.empty((0, 2), np.int16), {}
    rng = np.random.default_rng(np.frombuffer(case.encode(), np.uint8))
    shape = image.shape[1:]
    groups: dict[str, NDArray[np.intp]] = {"foreground": np.flatnonzero((image != 0).any(axis=0))}
    if label is not None:
        flat = label.ravel()
        for value in np.flatnonzero(np.bincount(flat, minlength=256)):
            if value:
                groups[str(value)] = np.flatnonzero(flat == value)
    chosen: list[NDArray[np.intp]] = []
    ranges: dict[str, tuple[int, int]] = {}
    total = 0
    for name, indices in groups.items():
        if len(indices) > POINTS:
            indices = indices[np.sort(rng.integers(len(indices), size=POINTS))]
        ranges[name] = (total, total + len(indices))
        total += len(indices)
        chosen.append(indices)
    return np.stack(np.unravel_index(np.concatenate(chosen), shape), axis=1).astype(np.int16), ranges


def to_native(probabilities: NDArray[np.float32], facts: CaseFacts) -> NDArray[np.float32]:
    """Bring (K, *shape) predictions on the prepared grid to the whole native image in RAS order, zeros outside."""
    ratio = tuple(native / own for native, own in zip(facts.native_spacing, facts.spacing, strict=True))
    inside = geometry.resample(probabilities, ratio, facts.cropped)
    whole = np.zeros((len(probabilities), *facts.native_shape), np.float32)
    box = tuple(slice(begin, begin + size) for begin, size in zip(facts.start, facts.cropped, strict=True))
    whole[(slice(None), *box)] = inside
    return whole
