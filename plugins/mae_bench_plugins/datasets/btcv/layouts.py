"""The arrangements in which the labelled cases lie: the official one, and MONAI's."""

import json
import math
from pathlib import Path

from mae_bench.errors import InputError
from mae_bench.interfaces import Layout, RawCase
from mae_bench_plugins.datasets.btcv import CHANNELS, LABELS, STAND_IN
from mae_bench_plugins.datasets.btcv.splits import NUMBERS, case_id

FOLDERS = ("RawData/Training", "Training", ".")
PAIRS = (("img", "label"), ("imagesTr", "labelsTr"))
SUFFIXES = (".nii.gz", ".nii")


def folder_of(root: Path) -> tuple[Path, str, str]:
    """The folder that holds the images' and the labels' folder, and the names of these two.

    Raises:
        InputError: there is none; or images without a folder of labels.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    for folder in FOLDERS:
        for images, labels in PAIRS:
            if (root / folder / images).is_dir():
                if not (root / folder / labels).is_dir():
                    raise InputError(f"{root / folder / labels}: missing, though {images}/ is there")
                return root / folder, images, labels
    raise InputError(
        f"{root}: neither RawData/Training/img, Training/img, img nor imagesTr is there",
        "`mae-bench data status btcv` says where to get the data and how it must lie",
    )


def scan(root: Path) -> Layout:
    """List the pairs imgNNNN, labelNNNN.

    Raises:
        InputError: this is not the layout. Faults of single cases are in `Layout.problems`.
    """
    folder, *names = folder_of(root)
    problems: dict[str, str] = {}
    images, labels = (
        _numbered(root, folder / name, prefix, problems) for name, prefix in zip(names, ("img", "label"), strict=True)
    )
    cases = []
    for number in sorted(images.keys() | labels.keys()):
        case = case_id(number)
        if case in problems:
            continue
        if number not in NUMBERS:
            there = images.get(number) or labels[number]
            problems[case] = f"{there}: {number} is no labelled case (those are 1 to 10 and 21 to 40)"
        elif number not in images or number not in labels:
            side, prefix = (names[0], "img") if number not in images else (names[1], "label")
            problems[case] = f"{case}: missing {folder / side / f'{prefix}{number:04d}.nii.gz'}"
        else:
            cases.append(RawCase(case, case, (images[number],), labels[number]))
    if not cases and not problems:
        raise InputError(
            f"{folder / names[0]}: no file imgNNNN.nii.gz",
            "`mae-bench data status btcv` says where to get the data and how it must lie",
        )
    return Layout(root, tuple(cases), CHANNELS, LABELS, problems)


def _numbered(root: Path, folder: Path, prefix: str, problems: dict[str, str]) -> dict[int, Path]:
    """NIfTI files of a folder by number, relative to `root`; what cannot be used goes to `problems`."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(SUFFIXES) or path.name.startswith("."):
            continue
        text = path.name.removesuffix(".gz").removesuffix(".nii").removeprefix(prefix)
        relative = path.relative_to(root)
        if not path.name.startswith(prefix) or len(text) != 4 or not (text.isascii() and text.isdigit()):
            problems[path.name] = f"{relative}: not named {prefix} and four digits"
        elif int(text) in found:
            problems[case_id(int(text))] = f"{relative}: beside {found[int(text)].name}; keep one of them"
        elif not path.resolve().is_relative_to(root.resolve()):
            problems[case_id(int(text))] = f"{relative}: leaves the data directory"
        else:
            found[int(text)] = relative
    return found


def stand_in_spacing(root: Path) -> float | None:
    """Voxel size in mm at which a stand-in is prepared; None for real data.

    Raises:
        InputError: the file that marks a stand-in is damaged.
    """
    path = root / STAND_IN
    if not path.is_file():
        return None
    try:
        spacing = float(json.loads(path.read_text())["spacing"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged: {error}", "write the stand-in again") from error
    if not (math.isfinite(spacing) and spacing > 0):
        raise InputError(f"{path}: spacing {spacing} is no voxel size", "write the stand-in again")
    return spacing
