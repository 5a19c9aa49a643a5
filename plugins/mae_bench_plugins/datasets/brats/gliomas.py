"""Simulated gliomas in MNI anatomy: the stand-in of `brats`, written in the layout of MSD Task01.

What makes it a question and not a threshold: contrasts, bias field and noise differ between subjects; bright spots
in FLAIR that are not tumour (white matter lesions), bright vessels after contrast agent, and faint tumours.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mae_bench.data.decathlon import save_nifti, write_description
from mae_bench_plugins.anatomy import Subject, Volume, acquire, smooth_noise, virtual_subject, write_each
from mae_bench_plugins.datasets.brats import CHANNELS

EDEMA, CORE, ENHANCING = 1, 2, 3
LABELS = {EDEMA: "edema", CORE: "non-enhancing tumor", ENHANCING: "enhancing tumour"}

# Mean level per contrast (FLAIR, T1w, T1gd, T2w) of grey matter, white matter and fluid, after typical scans.
TISSUE = np.array([[0.62, 0.50, 0.15], [0.58, 0.80, 0.22], [0.60, 0.80, 0.24], [0.62, 0.42, 0.98]])
# Change of level per contrast in edema, core and rim.
CHANGE = np.array([[0.38, 0.18, 0.30], [-0.20, -0.30, -0.18], [-0.18, -0.28, 0.42], [0.34, 0.40, 0.28]])


def write(
    root: Path, count: int, spacing: float, progress: Callable[[int, int], None]
) -> dict[str, tuple[float, float]]:
    """Write `count` subjects under `root`.

    Returns:
        Volumes of the whole and of the enhancing tumour in ml, by case.
    """
    cases = [f"DEMO_{number:03d}" for number in range(count)]
    volumes: dict[str, tuple[float, float]] = {}

    def write_one(number: int, case: str) -> None:
        volumes[case] = _write_one(root, case, number, spacing)

    write_each(cases, write_one, progress)
    write_description(root, "BRATS demo: simulated gliomas in MNI anatomy", CHANNELS, LABELS, cases)
    return {case: volumes[case] for case in cases}


def _write_one(root: Path, case: str, number: int, spacing: float) -> tuple[float, float]:
    rng = np.random.default_rng([1, number])
    subject = virtual_subject(rng, spacing)
    label = grow_tumour(subject, rng, spacing)
    clean = contrasts(subject, label, rng, spacing)
    image = np.stack([acquire(channel, subject.brain, rng) for channel in clean], axis=-1)
    save_nifti(root / "imagesTr" / f"{case}.nii.gz", image, subject.affine)
    save_nifti(root / "labelsTr" / f"{case}.nii.gz", label, subject.affine)
    ml = spacing**3 / 1000
    return float((label > 0).sum() * ml), float((label == ENHANCING).sum() * ml)


def grow_tumour(subject: Subject, rng: np.random.Generator, spacing: float) -> NDArray[np.uint8]:
    """A lesion of irregular shape that starts in the white matter, whose edema prefers white matter: (x, y, z)."""
    _, _, z = subject.mni
    seeds = np.argwhere((subject.wm > 0.7) & (z > -25))
    centre = seeds[rng.integers(len(seeds))]
    where = np.stack(np.meshgrid(*(np.arange(size) for size in subject.gm.shape), indexing="ij"))
    stretch = rng.uniform(0.75, 1.3, 3)
    offset = (where - centre.reshape(3, 1, 1, 1)) * spacing * stretch.reshape(3, 1, 1, 1)
    distance = np.sqrt((offset**2).sum(axis=0))
    radius = rng.uniform(12, 26)
    shape = distance / radius + 0.16 * smooth_noise(distance.shape, 12 / spacing, rng)
    tissue = subject.brain & (subject.csf < 0.6)
    reach = rng.uniform(1.25, 1.9) * np.where(subject.wm > 0.5, 1.0, 0.72)
    rim = rng.uniform(0.45, 0.8)
    label = np.zeros(distance.shape, np.uint8)
    label[tissue & (shape + 0.12 * smooth_noise(distance.shape, 8 / spacing, rng) < reach)] = EDEMA
    label[tissue & (shape < 1)] = ENHANCING
    label[tissue & (shape + 0.1 * smooth_noise(distance.shape, 6 / spacing, rng) < rim)] = CORE
    # Only what hangs together with the centre is tumour.
    parts, _ = ndimage.label(label > 0)
    label[parts != parts[tuple(centre)]] = 0
    return label


def contrasts(subject: Subject, label: NDArray[np.uint8], rng: np.random.Generator, spacing: float) -> Volume:
    """Four clean contrasts, (4, x, y, z)."""
    tissue = np.stack([subject.gm, subject.wm, subject.csf])
    image = np.einsum("ct,txyz->cxyz", TISSUE + rng.normal(0, 0.05, TISSUE.shape), tissue, optimize=True)
    strength = rng.uniform(0.45, 1.0, (1, 3)) * CHANGE
    inside = np.stack([ndimage.gaussian_filter((label == value).astype(np.float32), 0.5) for value in LABELS])
    texture = 1 + 0.3 * smooth_noise(label.shape, 8 / spacing, rng)
    image += np.einsum("ct,txyz->cxyz", strength, inside, optimize=True) * texture
    image[0] += 0.35 * _spots(subject, rng, spacing)
    image[2] += 0.45 * _vessels(subject)
    return np.asarray(image, np.float32)


def _spots(subject: Subject, rng: np.random.Generator, spacing: float) -> Volume:
    """White matter lesions: up to eight small bright spots beside the ventricles and in the deep white matter."""
    field = np.zeros(subject.wm.shape, np.float32)
    places = np.argwhere(subject.wm > 0.8)
    for _ in range(rng.integers(2, 9)):
        field[tuple(places[rng.integers(len(places))])] = 1
    size = rng.uniform(1.5, 3.0) / spacing
    blurred = ndimage.gaussian_filter(field, size) * (2 * np.pi) ** 1.5 * size**3
    return np.asarray(np.clip(blurred, 0, 1) * subject.wm, np.float32)


def _vessels(subject: Subject) -> Volume:
    """The sagittal sinus and the fluid near the midline base, which light up after contrast agent."""
    x, y, z = subject.mni
    sinus = np.exp(-((x / 4) ** 2)) * ((z > 30) | (y < -70)) * (subject.csf > 0.3)
    base = np.exp(-(((np.abs(x) - 12) / 5) ** 2) - ((z + 18) / 6) ** 2 - ((y - 2) / 10) ** 2)
    return np.asarray(np.clip(sinus + base, 0, 1) * subject.brain, np.float32)
