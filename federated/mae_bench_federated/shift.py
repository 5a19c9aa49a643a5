"""How a simulated site's scanner sees: its intensities and its resolution, the same for all of its images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mae_bench.data.crops import Batch
from mae_bench.spec import Federation


class Shift(NamedTuple):
    """Intensities are multiplied by `scale`, `offset` is added; then the image is blurred by `sigma` voxels."""

    scale: float = 1.0
    offset: float = 0.0
    sigma: float = 0.0


def shift_of(federation: Federation, site: int) -> Shift:
    """What a site's scanner does, drawn from the federation's seed and the site alone."""
    rng = np.random.default_rng([federation.partition_seed, 1, site])
    scale, offset, blur = 1 + rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform()
    strength = federation.intensity_shift
    return Shift(1 + strength * (scale - 1), strength * offset, federation.blur_shift * blur)


def shifted(batch: Callable[[int], Any], shift: Shift, ndim: int) -> Callable[[int], Any]:
    """Batches as the site's scanner would have made them; the same function where nothing is shifted."""
    return batch if shift == Shift() else _Shifted(batch, shift, ndim)


class _Shifted:
    """A class, not a closure, so that loader processes can be handed it."""

    def __init__(self, batch: Callable[[int], Batch], shift: Shift, ndim: int) -> None:
        self.batch, self.shift, self.ndim = batch, shift, ndim

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        found = self.batch(step)
        return found._replace(images=apply(found.images, self.shift, self.ndim))


def apply(images: NDArray[np.float16], shift: Shift, ndim: int) -> NDArray[np.float16]:
    """Shift (..., *roi) images of `ndim` axes. Voxels of exactly zero are outside the body and stay so."""
    changed = images.astype(np.float32)
    inside = changed != 0
    if shift.sigma:
        changed = gaussian_filter(changed, shift.sigma, axes=tuple(range(-ndim, 0)), mode="nearest")
    changed = changed * shift.scale + shift.offset
    limit = float(np.finfo(np.float16).max)
    return np.where(inside, np.clip(changed, -limit, limit), 0).astype(np.float16)
