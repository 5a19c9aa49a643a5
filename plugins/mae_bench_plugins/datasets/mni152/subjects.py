"""Writes the virtual subjects of `mni152`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mae_bench.data.decathlon import save_nifti, write_description
from mae_bench_plugins.anatomy import Subject, Volume, acquire, smooth_noise, virtual_subject, write_each


def write(root: Path, count: int, spacing: float, labels: dict[int, str], progress: Callable[[int, int], None]) -> None:
    """Write `count` subjects under `root`; every other one is atrophied (name ends with `a`)."""
    cases = [f"mni_{number:03d}{'a' if number % 2 else 'h'}" for number in range(count)]
    write_each(cases, lambda number, case: _write_one(root, case, number, spacing), progress)
    write_description(root, "mni152", ["T1w"], labels, cases)


def _write_one(root: Path, case: str, number: int, spacing: float) -> None:
    rng = np.random.default_rng([152, number])
    subject = virtual_subject(rng, spacing)
    label = anatomy_labels(subject)
    gm, wm, csf = subject.gm, subject.wm, subject.csf
    if case.endswith("a"):
        # Tissue next to fluid gives way to it, more or less in different places.
        shrink = np.clip(0.55 + 0.25 * smooth_noise(gm.shape, 30 / spacing, rng), 0, 1)
        near = ndimage.gaussian_filter(csf, 2.5 / spacing)
        lost = np.clip(1.6 * near, 0, 1) * shrink
        gm, wm, csf = gm * (1 - lost), wm * (1 - 0.5 * lost), csf + gm * lost + 0.5 * wm * lost
    save_nifti(
        root / "imagesTr" / f"{case}.nii.gz",
        acquire(contrast(subject, gm, wm, csf, rng), subject.brain, rng),
        subject.affine,
    )
    save_nifti(root / "labelsTr" / f"{case}.nii.gz", label, subject.affine)


def contrast(subject: Subject, gm: Volume, wm: Volume, csf: Volume, rng: np.random.Generator) -> Volume:
    """A T1-weighted image whose grey, white and fluid levels differ between subjects, as between scanners."""
    levels = rng.normal([0.62, 0.85, 0.28], [0.05, 0.04, 0.05])
    tissue = levels[0] * gm + levels[1] * wm + levels[2] * csf
    return np.asarray(0.6 * tissue + 0.4 * subject.t1 * (1 - csf) + 0.4 * levels[2] * csf, np.float32)


def anatomy_labels(subject: Subject) -> NDArray[np.uint8]:
    """Tissue by the larger of grey matter, white matter and fluid; lobes and sides by planes in MNI millimetres."""
    x, y, z = subject.mni
    tissue = np.stack([subject.csf, subject.gm, subject.wm]).argmax(axis=0)
    label = np.zeros(tissue.shape, np.uint8)
    grey, white = tissue == 1, tissue == 2
    # Central sulcus: from y = -25 at the vertex forward to y = 3 at the Sylvian fissure, which rises backwards.
    frontal = y > -25 + 0.4 * (70 - z)
    temporal = (np.abs(x) > 22) & (z < -4 - 0.25 * (y - 10)) & (y > -62) & (y < 22)
    label[grey] = 2
    label[grey & frontal] = 1
    label[grey & temporal] = 3
    label[white & (x < 0)] = 4
    label[white & (x >= 0)] = 5
    # Tentorium: under a plane that rises backwards; brain stem: the middle, under the mamillary bodies.
    below = (z < -18 + 0.12 * (-60 - y)) & (y < -36) | (z < -14) & (np.abs(x) < 18) & (y < -14)
    label[(grey | white) & below] = 6
    return label
