"""Writes small NIfTI data sets: the layout of the Decathlon (MSD), and the case folders of BraTS 2021 and 2023.

Everything is written by nibabel and the standard library, so that readers are tested against files they did not write.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

BRATS_CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")
BRATS_2021 = ("_flair", "_t1", "_t1ce", "_t2", "_seg")
BRATS_2023 = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")


@dataclass(frozen=True)
class Case:
    """What one case looks like. `shape` and `spacing` are along right, anterior, superior, whatever the orientation."""

    id: str
    orientation: str = "RAS"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shape: tuple[int, int, int] = (14, 12, 13)
    dtype: str = "int16"
    label_dtype: str = "uint8"
    seed: int = 0


@dataclass(frozen=True)
class Truth:
    """What was written. image: (C, x, y, z) and label: (x, y, z), in RAS order. affine: of the RAS image."""

    image: NDArray[Any]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def draw(case: Case, channels: int, labels: Sequence[int]) -> Truth:
    """A blob of non-zero voxels in air, with a box of each label value inside it that no other box covers."""
    rng = np.random.default_rng([case.seed, *case.id.encode()])
    where = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in case.shape), indexing="ij"))
    inside = (where**2).sum(axis=0) < 0.9
    high = 256 if case.dtype == "uint8" else 1000
    values = rng.uniform(1, high, (channels, *case.shape)).astype(case.dtype)
    image = np.where(inside, values, np.zeros((), case.dtype))
    label = np.zeros(case.shape, np.uint8)
    places = np.argwhere(inside)
    for value in labels:
        x, y, z = places[rng.integers(len(places))]
        label[max(x - 2, 0) : x + 2, max(y - 1, 0) : y + 2, z : z + 3] = value
    label[~inside] = 0
    for value, place in zip(labels, places[:: max(1, len(places) // len(labels))], strict=False):
        label[tuple(place)] = value  # each value has at least one voxel
    affine = np.diag([*case.spacing, 1.0])
    affine[:3, 3] = rng.integers(-50, 50, 3)
    return Truth(image, label, affine)


def save(path: Path, array: NDArray[Any], affine: NDArray[np.float64], orientation: str = "RAS") -> None:
    """Write an array that is in RAS order as a file in another orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    nib.save(image.as_reoriented(turn), path)


def write_description(root: Path, channels: Sequence[str], labels: dict[int, str], cases: Sequence[str]) -> None:
    """Write dataset.json as the Decathlon's are."""
    description = {
        "name": "FAKE",
        "tensorImageSize": "4D" if len(channels) > 1 else "3D",
        "modality": {str(number): channel for number, channel in enumerate(channels)},
        "labels": {"0": "background"} | {str(value): name for value, name in labels.items()},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases],
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(description, indent=1))


def write_msd(
    root: Path,
    cases: Sequence[Case],
    channels: Sequence[str] = ("MRI",),
    labels: dict[int, str] | None = None,
) -> dict[str, Truth]:
    """Write a task folder. Returns what was written, by case."""
    labels = {1: "inner", 2: "outer"} if labels is None else labels
    root.mkdir(parents=True, exist_ok=True)
    truths = {}
    for case in cases:
        truth = truths[case.id] = draw(case, len(channels), sorted(labels))
        # One channel is stored in three dimensions, several in four, as the Decathlon's own tasks are.
        image = truth.image[0] if len(channels) == 1 else np.moveaxis(truth.image, 0, -1)
        save(root / "imagesTr" / f"{case.id}.nii.gz", image, truth.affine, case.orientation)
        label = truth.label.astype(case.label_dtype)
        save(root / "labelsTr" / f"{case.id}.nii.gz", label, truth.affine, case.orientation)
    write_description(root, channels, labels, [case.id for case in cases])
    return truths


def plain_cases(count: int, **fields: Any) -> list[Case]:
    """`count` cases named case_00, case_01, ..."""
    return [Case(f"case_{number:02d}", seed=number, **fields) for number in range(count)]


def write_brats_folders(
    root: Path,
    cases: Sequence[Case],
    suffixes: Sequence[str],
    labels: Sequence[int],
    extension: str = ".nii.gz",
) -> dict[str, Truth]:
    """Write one folder per case with one file per channel and one for the label."""
    truths = {}
    for case in cases:
        truth = truths[case.id] = draw(case, len(suffixes) - 1, labels)
        for suffix, array in zip(suffixes, [*truth.image, truth.label], strict=True):
            save(root / case.id / f"{case.id}{suffix}{extension}", array, truth.affine, case.orientation)
    return truths
