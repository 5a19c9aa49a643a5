"""What training may change in an image without changing what it says. Drawing is apart from doing."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mae_bench.data import geometry

RATIO = (3 / 4, 4 / 3)  # of the sides of a random resized crop, as Szegedy et al. 2015 and torchvision


@dataclass(frozen=True)
class Augmentation:
    """axes, flip: mirrored along each of `axes` with probability `flip`.

    intensity: scaled and shifted by up to this much. area: random resized crops of this share of the image, from and
    to. rotate: degrees, about the last axis of a volume.
    """

    axes: tuple[int, ...] = ()
    flip: float = 0.0
    intensity: float = 0.0
    area: tuple[float, float] | None = None
    rotate: float = 0.0


def draw_flips(augmentation: Augmentation, rng: np.random.Generator) -> list[int]:
    """Axes to mirror this time."""
    return [axis for axis in augmentation.axes if rng.random() < augmentation.flip]


def draw_gain(augmentation: Augmentation, rng: np.random.Generator) -> tuple[float, float]:
    """Scale and shift of the intensities."""
    limit = augmentation.intensity
    return 1 + rng.uniform(-limit, limit), rng.uniform(-limit, limit)


def draw_box(shape: tuple[int, ...], area: tuple[float, float], rng: np.random.Generator) -> tuple[slice, ...]:
    """A box of a random share of the image, its first side stretched against the others, anywhere inside."""
    axes = len(shape)
    share = rng.uniform(*area)
    stretch = np.exp(rng.uniform(*np.log(RATIO)))
    box = []
    for axis, whole in enumerate(shape):
        power = (axes - 1) / axes if axis == 0 else -1 / axes
        size = int(np.clip(round(whole * share ** (1 / axes) * stretch**power), 1, whole))
        first = int(rng.integers(whole - size + 1))
        box.append(slice(first, first + size))
    return tuple(box)


def resize(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Bring the last axes of an image (C, *spatial) or a label (*spatial) to `shape`; labels keep their values."""
    old = array.shape[-len(shape) :]
    ratio = tuple(size / new for size, new in zip(old, shape, strict=True))
    nearest = array.dtype.kind == "u"
    return geometry.resample(array if nearest else array.astype(np.float32), ratio, shape, nearest=nearest, edges=True)


def rotate(array: NDArray[Any], degrees: float, ndim: int) -> NDArray[Any]:
    """Turn the first two of the last `ndim` axes; zeros come in at the corners."""
    nearest = array.dtype.kind == "u"
    plane = (array.ndim - ndim, array.ndim - ndim + 1)
    turned: NDArray[Any] = ndimage.rotate(
        array if nearest else array.astype(np.float32), degrees, plane, reshape=False, order=0 if nearest else 1
    )
    return turned
