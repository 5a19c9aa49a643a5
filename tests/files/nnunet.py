"""Writes small data sets in nnU-Net v2's raw format, by nibabel, Pillow and the standard library."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.files.decathlon import Case, Truth, draw, save


def describe(root: Path, **fields: Any) -> None:
    """Write dataset.json; a field that is None is left out."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def write_nnunet(
    root: Path,
    count: int = 4,
    channels: Sequence[str] = ("T1",),
    labels: dict[str, Any] | None = None,
    values: Sequence[int] = (1, 2),
    ending: str = ".nii.gz",
    **fields: Any,
) -> dict[str, Truth]:
    """Write volumes CASE_0000, CASE_0001, ... and their labels. Returns what was written, by case."""
    truths = {}
    for number in range(count):
        case = Case(f"abc_{number:03d}", seed=number)
        truth = truths[case.id] = draw(case, len(channels), values)
        for channel, image in enumerate(truth.image):
            save(root / "imagesTr" / f"{case.id}_{channel:04d}{ending}", image, truth.affine, "LPS")
        save(root / "labelsTr" / f"{case.id}{ending}", truth.label, truth.affine, "LPS")
    described: dict[str, Any] = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels or {"background": 0, "inner": 1, "outer": 2},
        "numTraining": count,
        "file_ending": ending,
    }
    describe(root, **{**described, **fields})
    return truths


def write_png_set(root: Path, count: int = 4, colour: bool = False, channels: int = 1) -> dict[str, NDArray[Any]]:
    """Write planes of 20 x 16 pixels with a square that is the label. Returns (C, H, W) with the label below, by case.

    colour: the three channels lie in one RGB file.
    """
    written = {}
    count_of_channels = 3 if colour else channels
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng([7, number])
        image = rng.integers(1, 255, (count_of_channels, 20, 16)).astype(np.uint8)
        label = np.zeros((20, 16), np.uint8)
        label[4 + number : 9 + number, 5:11] = 1
        name = f"road_{number}"
        if colour:
            Image.fromarray(np.moveaxis(image, 0, -1)).save(root / "imagesTr" / f"{name}_0000.png")
        else:
            for channel, plane in enumerate(image):
                Image.fromarray(plane).save(root / "imagesTr" / f"{name}_{channel:04d}.png")
        Image.fromarray(label).save(root / "labelsTr" / f"{name}.png")
        written[name] = np.concatenate([image, label[None]])
    names = ["rgb_to_0_1"] * 3 if colour else ["camera"] * channels
    describe(
        root,
        channel_names={str(number): name for number, name in enumerate(names)},
        labels={"background": 0, "road": 1},
        numTraining=count,
        file_ending=".png",
    )
    return written
