"""The Medical Segmentation Decathlon layout: dataset.json, imagesTr/, labelsTr/. Read by several data sets.

dataset.json names the channels (`modality`), the label values (`labels`) and the pairs (`training`).
"""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mae_bench.errors import InputError
from mae_bench.interfaces import Layout, RawCase
from mae_bench.store import write_bytes, write_json

SUFFIXES = (".nii.gz", ".nii")


def scan(root: Path) -> Layout:
    """List the training cases that dataset.json declares.

    Raises:
        InputError: no dataset.json, or one that is not valid. Faults of single cases are in `Layout.problems`.
    """
    path = root / "dataset.json"
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise InputError(
            f"{path}: missing", "--data must be the folder that holds dataset.json and imagesTr/"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    channels, labels, pairs = _declared(found, path)
    cases: dict[str, RawCase] = {}
    problems: dict[str, str] = {}
    for number, pair in enumerate(pairs):
        field = f"{path}: training[{number}]"
        try:
            image, label = (_inside(root, pair[side], f"{field}.{side}") for side in ("image", "label"))
            missing = [str(root / file) for file in (image, label) if not (root / file).is_file()]
        except (KeyError, TypeError):
            problems[field] = f"{field}: must be an object with image and label"
            continue
        except (OSError, ValueError, RuntimeError) as error:  # zero bytes, endless links, names too long
            problems[field] = f"{field}: {pair['image']!r} or {pair['label']!r} is not a usable path: {error}"
            continue
        except InputError as error:
            problems[field] = str(error)
            continue
        case = _stem(image)
        if case in cases or case in problems:
            problems[field] = f"{field}: case {case} is listed twice ({image})"
        elif missing:
            problems[case] = f"{field}: missing {' and '.join(missing)}"
        else:
            cases[case] = RawCase(case, case, (image,), label)
    return Layout(root, tuple(cases.values()), channels, labels, problems)


def _declared(found: Any, path: Path) -> tuple[tuple[str, ...], dict[int, str], list[Any]]:
    try:
        channels = tuple(str(found["modality"][key]) for key in sorted(found["modality"], key=int))
        labels = {int(value): str(name) for value, name in found["labels"].items() if int(value)}
        pairs = found["training"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: needs `modality` and `labels` (objects with whole numbers as keys) and `training` (a list); "
            f"stumbled over {error}"
        ) from error
    if not channels or not labels or not isinstance(pairs, list):
        raise InputError(f"{path}: `modality` and `labels` must not be empty and `training` must be a list")
    names = [name for value, name in found["labels"].items() if int(value)]
    if len(labels) != len(names) or len(set(names)) != len(names):
        raise InputError(f"{path}: `labels` must give each value one name and each name one value")
    if not all(0 < value < 256 for value in labels):
        raise InputError(f"{path}: `labels` must be between 0 and 255, found {sorted(labels)}")
    return channels, labels, pairs


def _inside(root: Path, name: Any, field: str) -> Path:
    """A path as dataset.json writes it, relative to `root`. Raises InputError when it leaves `root`."""
    if not isinstance(name, str) or not name.endswith(SUFFIXES):
        raise InputError(f"{field}: {name!r} is not the name of a .nii or .nii.gz file")
    relative = Path(PurePosixPath(name))
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or not (root / relative).resolve().is_relative_to(root.resolve())
    ):
        raise InputError(f"{field}: {name!r} leaves the data directory")
    return relative


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def save_nifti(path: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write one NIfTI-1 file, atomically and with the same bytes every time."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    raw = image.to_bytes()
    if path.name.endswith(".gz"):
        from isal import igzip

        raw = igzip.compress(raw, 1, mtime=0)
    write_bytes(path, raw)


def write_description(root: Path, name: str, channels: Iterable[str], labels: dict[int, str], cases: list[str]) -> None:
    """Write dataset.json; written last, it says that every file it names is there."""
    write_json(
        root / "dataset.json",
        {
            "name": name,
            "tensorImageSize": "4D",
            "modality": {str(number): channel for number, channel in enumerate(channels)},
            "labels": {"0": "background"} | {str(value): text for value, text in labels.items()},
            "numTraining": len(cases),
            "numTest": 0,
            "training": [
                {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases
            ],
            "test": [],
        },
    )
