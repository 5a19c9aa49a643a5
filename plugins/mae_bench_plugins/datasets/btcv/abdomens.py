"""Procedural abdominal CTs: the stand-in of `btcv`, in the official arrangement under the official names.

What makes it a question and not a threshold: liver, spleen, kidneys, pancreas, bowel and muscle differ by less than a
patient differs from the next, since the contrast phase does; left and right organs differ by place alone; bowel loops
look like stomach and pancreas.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mae_bench.data.decathlon import save_nifti
from mae_bench.store import write_json
from mae_bench_plugins.anatomy import smooth_noise
from mae_bench_plugins.datasets.btcv import LABELS, STAND_IN, shapes
from mae_bench_plugins.datasets.btcv.shapes import Ellipsoid, Solid, Tube, Volume, union
from mae_bench_plugins.datasets.btcv.splits import NUMBERS

VALUES = {name: value for value, name in LABELS.items()}
# HU without contrast agent, and what the agent adds in the arterial and in the portal venous phase.
HU = {
    "spleen": (48, 80, 72),
    "right kidney": (32, 110, 150),
    "left kidney": (32, 110, 150),
    "gallbladder": (9, 0, 0),
    "esophagus": (38, 15, 25),
    "liver": (56, 12, 55),
    "stomach": (28, 8, 12),
    "aorta": (42, 230, 105),
    "inferior vena cava": (42, 30, 92),
    "portal and splenic veins": (42, 55, 120),
    "pancreas": (38, 62, 52),
    "right adrenal gland": (28, 40, 42),
    "left adrenal gland": (28, 40, 42),
}
AIR, LUNG, GAS, FAT, FLUID = -1000.0, -830.0, -820.0, -100.0, 18.0
CORD, MUSCLE, SPONGE, BONE = 30.0, 54.0, 180.0, 320.0
TRUNK = (162.0, 112.0)  # half axes of the body, mm
VESSELS = ("aorta", "inferior vena cava", "portal and splenic veins", "esophagus")  # stay where they run


def write(root: Path, spacing: float, progress: Callable[[int, int], None]) -> None:
    """Write the 30 cases under `root`; the mark of a stand-in last."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(lambda number: _write_one(root, number, spacing), NUMBERS), 1):
            progress(done, len(NUMBERS))
    write_json(root / STAND_IN, {"spacing": spacing, "what": "procedural abdomens written by mae-bench, no patients"})


def _write_one(root: Path, number: int, spacing: float) -> None:
    image, label, affine = draw(np.random.default_rng([3, number]), spacing)
    folder = root / "RawData" / "Training"
    save_nifti(folder / "img" / f"img{number:04d}.nii.gz", image, affine)
    save_nifti(folder / "label" / f"label{number:04d}.nii.gz", label, affine)


def draw(rng: np.random.Generator, spacing: float) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """One patient as a scanner stores it: HU (x, y, z) with x to the left, label, affine."""
    voxel = spacing * np.array([*[rng.uniform(0.9, 1.1)] * 2, rng.uniform(0.9, 1.3)])
    size = rng.uniform([0.88, 0.85, 0.92], [1.12, 1.15, 1.08])
    margin, top, bottom = rng.uniform([4, 88, 100], [30, 112, 150])
    half = np.array(TRUNK) * size[:2] + margin
    ends = np.array([[-half[0], -half[1], -bottom], [half[0], half[1], top]])
    shape = tuple(int(count) for count in np.ceil((ends[1] - ends[0]) / voxel))
    axes = [start + step * np.arange(count) for start, step, count in zip(ends[0], voxel, shape, strict=True)]
    at = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    at[:2] = np.einsum("ab,bxyz->axyz", _turn(np.deg2rad(rng.uniform(-5, 5))), at[:2])
    at /= size.reshape(3, 1, 1, 1).astype(np.float32)
    for axis in at:
        axis += 3.5 * smooth_noise(shape, 55 / spacing, rng)
    image, label = _paint(at, spacing, rng)
    # Scanners blur in the plane, and their noise is correlated the same way.
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.6, 0.6, 0)) * 2.2
    image += rng.uniform(8, 22) * noise
    stored = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    affine = np.diag([-voxel[0], voxel[1], voxel[2], 1.0])
    affine[:3, 3] = [axes[0][-1], axes[1][0], axes[2][0]]
    return np.ascontiguousarray(stored[::-1]), np.ascontiguousarray(label[::-1]), affine


def _turn(angle: float) -> NDArray[np.float32]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)


def _paint(at: Volume, spacing: float, rng: np.random.Generator) -> tuple[Volume, NDArray[np.uint8]]:
    """HU and label at body positions `at` (3, x, y, z): the trunk first, then what lies in it."""
    image = np.full(at.shape[1:], AIR, np.float32)
    outside = _lay_trunk(image, at, spacing, rng)
    dose, late = rng.uniform(0.2, 1.1), rng.uniform(0.2, 1.0)
    for loop in (*shapes.BOWEL, *_loops(rng)):
        hu = GAS if rng.random() < 0.15 else rng.uniform(15, 95)
        _lay(image, np.maximum(_varied([loop], at, spacing, rng), outside), float(hu), spacing)
    label = np.zeros(at.shape[1:], np.uint8)
    for name, solids in shapes.ORGANS.items():
        native, arterial, portal = HU[name]
        level = native + dose * ((1 - late) * arterial + late * portal) + float(rng.normal(0, 6))
        distance = np.maximum(_varied(solids, at, spacing, rng, fixed=name in VESSELS), outside)
        texture = 5 * smooth_noise(distance.shape, 25 / spacing, rng)
        if name == "gallbladder" and rng.random() < 0.1:
            continue  # one in ten patients has none left
        _lay(image, distance, level + texture, spacing)
        label[distance < 0] = VALUES[name]
        if name == "stomach" and rng.random() < 0.6:
            # The patient lies on the back: gas gathers in front.
            _lay(image, np.maximum(distance + 7, rng.uniform(40, 60) - at[1]), GAS, spacing)
        if "kidney" in name:
            _lay(image, distance + 15, FLUID, spacing)
    return image, label


def _lay(image: Volume, distance: Volume, hu: float | Volume, spacing: float) -> None:
    """Put `hu` where `distance` (mm) is negative, in place; voxels at the border get their share of it."""
    share = np.clip(0.5 - distance / np.float32(spacing), 0, 1)
    np.add(image, share * (hu - image), out=image)


def _lay_trunk(image: Volume, at: Volume, spacing: float, rng: np.random.Generator) -> Volume:
    """Fat, wall, ribs, lungs, spine and back, in place. Returns the signed distance to the cavity's wall, mm."""
    x, y, z = at
    depth = (1 - np.sqrt((x / TRUNK[0]) ** 2 + (y / TRUNK[1]) ** 2)) * TRUNK[1]
    fat = rng.uniform(6, 22) * (1 + 0.3 * smooth_noise(depth.shape, 80 / spacing, rng))
    wall = fat + rng.uniform(7, 11)
    _lay(image, -depth, FAT, spacing)
    _lay(image, fat - depth, MUSCLE + rng.normal(0, 4), spacing)
    # Ribs run around the upper trunk, 26 mm apart, falling towards the front, where they end.
    ribs = np.abs((z + 0.5 * y + 7) % 26 - 13) - 4.5
    ring = np.abs(depth - (fat + wall) / 2) - 4
    _lay(image, np.maximum.reduce([ring, ribs, -z - 10, y - 60]), BONE, spacing)
    outside: Volume = wall - depth
    _lay(image, outside, FAT + rng.normal(0, 5), spacing)
    _lay(image, np.maximum(union(shapes.LUNGS, at), outside), LUNG, spacing)
    spine: tuple[tuple[Sequence[Solid], float], ...] = (
        (shapes.MUSCLES, MUSCLE),
        (shapes.ARCHES, BONE),
        (shapes.VERTEBRAE, SPONGE),
        (shapes.CANAL, CORD),
    )
    for solids, hu in spine:
        _lay(image, union(solids, at), hu + float(rng.normal(0, 6)), spacing)
    return outside


def _loops(rng: np.random.Generator) -> list[Solid]:
    """Small bowel: short tubes in front and below, anywhere."""
    loops: list[Solid] = []
    for _ in range(rng.integers(6, 12)):
        start = rng.uniform([-75, 15, -150], [75, 70, -50])
        end = start + rng.normal(0, 28, 3)
        first, last = (tuple(float(part) for part in point) for point in (start, end))
        loops.append(Tube((first, last), (float(rng.uniform(9, 14)), float(rng.uniform(9, 14)))))  # type: ignore[arg-type]
    return loops


def _varied(
    solids: Sequence[Solid],
    at: Volume,
    spacing: float,
    rng: np.random.Generator,
    *,
    fixed: bool = False,
) -> Volume:
    """Distance of solids moved by millimetres, swollen or shrunken, with an uneven surface."""
    centre = np.mean(
        [part.centre if isinstance(part, Ellipsoid) else np.mean(part.points, axis=0) for part in solids], 0
    )
    shift = rng.normal(0, 1.5 if fixed else 4.0, 3)
    scale = 1.0 if fixed else rng.uniform(0.88, 1.12)
    middle = np.reshape(np.float32(centre), (3, 1, 1, 1))
    moved = (at - middle - np.reshape(np.float32(shift), (3, 1, 1, 1))) / np.float32(scale) + middle
    distance = union(solids, moved) * np.float32(scale)
    thick = min(min(part.radii) for part in solids)
    return np.asarray(distance + min(2.0, 0.12 * thick) * smooth_noise(distance.shape, 22 / spacing, rng), np.float32)
