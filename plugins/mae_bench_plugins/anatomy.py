"""Virtual subjects: the ICBM 152 template (Fonov et al. 2009; inside nilearn) seen through random deformations.

The anatomy is real (a T1 average of 152 people with its grey and white matter maps); what makes a subject of it, the
deformation, the contrast, the bias field and the noise, is simulated.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mae_bench.data.nifti import read_nifti
from mae_bench.errors import InputError

Volume = NDArray[np.float32]

TEMPLATE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
MARGIN = 6.0  # mm of air around the brain


@dataclass(frozen=True)
class Template:
    """maps: t1, gm, wm in [0, 1], (3, x, y, z). affine: voxel to MNI millimetres."""

    maps: Volume
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """One virtual brain. Maps are (x, y, z); `mni` are template millimetres under each voxel, (3, x, y, z)."""

    t1: Volume
    gm: Volume
    wm: Volume
    csf: Volume
    brain: NDArray[np.bool_]
    mni: Volume
    affine: NDArray[np.float64]


@cache
def template() -> Template:
    """The template at its own 1 mm.

    Raises:
        InputError: this nilearn does not carry it.
    """
    spec = find_spec("nilearn")
    root = Path(next(iter(spec.submodule_search_locations or ["."]))) if spec else Path()
    files = [root / "datasets" / "data" / TEMPLATE.format(name) for name in ("t1", "gm", "wm")]
    if not all(file.is_file() for file in files):
        raise InputError(f"{files[0]}: missing", "install nilearn 0.10.4 or newer: pip install -U nilearn")
    read = [read_nifti(file) for file in files]
    return Template(np.stack([nifti.data for nifti in read]).astype(np.float32) / np.float32(255), read[0].affine)


def smooth_noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> Volume:
    """Gaussian noise of unit deviation that varies over `scale` voxels, (*shape)."""
    coarse = [max(4, int(np.ceil(size / scale)) + 3) for size in shape]
    noise = rng.standard_normal(coarse).astype(np.float32)
    zoom = [(size - 1) / (count - 3) for size, count in zip(shape, coarse, strict=True)]
    # Cubic B-splines on the coarse grid, one cell of margin on each side: smooth to the border.
    weights = [_bspline_rows(size, factor) for size, factor in zip(shape, zoom, strict=True)]
    field = np.einsum("ai,bj,ck,ijk->abc", *weights, noise, optimize=True)
    return np.asarray(field / max(float(field.std()), 1e-6), np.float32)


def _bspline_rows(size: int, zoom: float) -> Volume:
    """Weights of the coarse control points for each fine position, (size, points)."""
    position = np.arange(size) / max(zoom, 1e-6)
    count = round((size - 1) / zoom) + 3 if zoom else 4
    distance = np.abs(position[:, None] - (np.arange(max(count, 4))[None] - 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def virtual_subject(rng: np.random.Generator, spacing: float, deformation: float = 4.0) -> Subject:
    """Draw one subject.

    Args:
        rng: everything that is random comes from here.
        spacing: isotropic voxel size of the result, mm.
        deformation: standard deviation of the local displacement, mm.
    """
    source = template()
    ends = np.array([[-78.0, -112.0, -70.0], [78.0, 77.0, 85.0]]) + [[-MARGIN], [MARGIN]]
    shape = tuple(int(size) for size in np.ceil((ends[1] - ends[0]) / spacing))
    axes = [start + spacing * np.arange(size, dtype=np.float32) for start, size in zip(ends[0], shape, strict=True)]
    world = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    turn = np.deg2rad(rng.uniform(-6, 6, 3))
    scale = rng.uniform(0.92, 1.08, 3)
    linear = (_rotation(turn) / scale).astype(np.float32)
    mni = np.einsum("ab,bxyz->axyz", linear, world, optimize=True)
    for axis in mni:
        axis += deformation * smooth_noise(shape, 35 / spacing, rng) + 0.35 * deformation * smooth_noise(
            shape, 14 / spacing, rng
        )
    index = mni - source.affine[:3, 3].astype(np.float32)[:, None, None, None]
    # A slightly smoothed template keeps coarse grids free of aliasing.
    maps = np.stack([ndimage.map_coordinates(part, index, order=1, prefilter=False) for part in _smoothed(spacing)])
    t1, gm, wm = maps
    brain = ndimage.binary_fill_holes(t1 > 0.25)
    csf = np.clip(1 - gm - wm, 0, 1) * brain
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = ends[0]
    return Subject(t1 * brain, gm * brain, wm * brain, csf, brain, mni, affine)


@cache
def _smoothed(spacing: float) -> Volume:
    sigma = max(0.0, (spacing - 1) / 2.355)
    return np.stack([ndimage.gaussian_filter(part, sigma) for part in template().maps])


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    (a, b, c), one = angles, np.eye(3)
    x, y, z = one.copy(), one.copy(), one.copy()
    x[1:, 1:] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    y[::2, ::2] = [[np.cos(b), np.sin(b)], [-np.sin(b), np.cos(b)]]
    z[:2, :2] = [[np.cos(c), -np.sin(c)], [np.sin(c), np.cos(c)]]
    return np.asarray(x @ y @ z)


def acquire(
    clean: Volume, brain: NDArray[np.bool_], rng: np.random.Generator, noise: float = 0.015
) -> NDArray[np.int16]:
    """Turn a clean image (brain about 0 to 1) into what a scanner stores: bias field, Rician noise, whole numbers."""
    bias = np.exp(0.12 * smooth_noise(clean.shape, clean.shape[0] / 2.5, rng))
    level = noise * rng.uniform(0.7, 1.3)
    real, imaginary = rng.standard_normal((2, *clean.shape), dtype=np.float32) * level
    image = np.hypot(np.clip(clean, 0, None) * bias + real, imaginary) * rng.uniform(600, 1400)
    # Inside the brain at least 1: zero is what marks the air of a skull-stripped image.
    return np.where(brain, np.clip(np.rint(image), 1, 32000), 0).astype(np.int16)


def write_each(cases: Sequence[str], write: Callable[[int, str], None], progress: Callable[[int, int], None]) -> None:
    """Call `write(number, case)` for every case, in threads: drawing and packing release the interpreter lock."""
    template()  # read once, before the threads ask for it
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(write, range(len(cases)), cases), 1):
            progress(done, len(cases))
