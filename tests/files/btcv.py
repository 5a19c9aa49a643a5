"""Writes small data sets in the arrangement of Beyond the Cranial Vault, and in MONAI's, by nibabel alone."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.files.decathlon import Case, Truth, draw, save

OFFICIAL = (*range(1, 11), *range(21, 41))
MONAI = ("imagesTr", "labelsTr")


def write_btcv(
    root: Path,
    numbers: Sequence[int] = OFFICIAL,
    folder: str = "RawData/Training",
    names: tuple[str, str] = ("img", "label"),
    shape: tuple[int, int, int] = (12, 11, 10),
    organs: Sequence[int] = range(1, 14),
) -> dict[int, Truth]:
    """Write pairs imgNNNN, labelNNNN, stored as LAS. Intensities are HU from 1 on, -1000 around."""
    truths = {}
    for number in numbers:
        truth = draw(Case(f"{number:04d}", shape=shape, spacing=(1.0, 1.2, 2.5), seed=number), 1, list(organs))
        image = np.where(truth.image[0] > 0, truth.image[0] % 240, -1000).astype(np.int16)
        truths[number] = Truth(image[None], truth.label, truth.affine)
        save(root / folder / names[0] / f"img{number:04d}.nii.gz", image, truth.affine, "LAS")
        save(root / folder / names[1] / f"label{number:04d}.nii.gz", truth.label, truth.affine, "LAS")
    return truths


def write_dataset_0(path: Path, validation: Sequence[int], training: Sequence[int] | None = None) -> None:
    """Write MONAI's list of pairs."""
    training = [number for number in OFFICIAL if number not in validation] if training is None else training

    def pairs(numbers: Sequence[int]) -> list[dict[str, str]]:
        return [
            {"image": f"imagesTr/img{number:04d}.nii.gz", "label": f"labelsTr/label{number:04d}.nii.gz"}
            for number in numbers
        ]

    path.write_text(json.dumps({"training": pairs(training), "validation": pairs(validation), "test": []}))
