"""dataset.json of nnU-Net v2: channels, labels or regions, and how files end."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae_bench.errors import InputError

FILE = "dataset.json"
ENDINGS = (".nii.gz", ".nii", ".png")
VALUES = range(1, 256)


@dataclass(frozen=True)
class Description:
    """channels: names in file order. regions: name, label values, and the value painted, in painting order.

    overlapping: at least one region has several values, as nnU-Net's region-based training. cases: the number that
    is declared. listed: entries of the optional field `dataset`, unchecked.
    """

    channels: tuple[str, ...]
    regions: tuple[tuple[str, tuple[int, ...], int], ...]
    overlapping: bool
    ending: str
    cases: int
    listed: dict[str, Any] | None

    @property
    def labels(self) -> dict[int, str]:
        """Label values that files may contain, each with the name of the last region that contains it."""
        return {value: name for name, values, _ in self.regions for value in values}


def read_description(root: Path) -> Description:
    """Read `root`/dataset.json.

    Raises:
        InputError: missing, not JSON, or a field is not as nnU-Net v2 has it; names the field.
    """
    path = root / FILE
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: missing", "--data must be one DatasetXXX_Name folder of nnUNet_raw") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: must be an object")
    ending, cases, listed = found.get("file_ending"), found.get("numTraining"), found.get("dataset")
    if ending not in ENDINGS:
        raise InputError(
            f"{path}: file_ending {ending!r}: only {', '.join(ENDINGS)} are read",
            "other formats need a reader of their own; convert the files to .nii.gz and change file_ending",
        )
    if not isinstance(cases, int) or isinstance(cases, bool) or cases < 1:
        raise InputError(f"{path}: numTraining {cases!r} is not a number of cases")
    if listed is not None and not isinstance(listed, dict):
        raise InputError(f"{path}: dataset must be an object with one entry per case")
    regions, overlapping = _regions(found, path)
    return Description(_channels(found, path), regions, overlapping, ending, cases, listed)


def _channels(found: dict[str, Any], path: Path) -> tuple[str, ...]:
    field = "channel_names" if "channel_names" in found else "modality"
    names = found.get(field)
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(names))} or not names:
        raise InputError(f"{path}: channel_names must be an object with the keys 0, 1, 2, ... as text")
    return tuple(str(names[str(number)]) for number in range(len(names)))


def _regions(found: dict[str, Any], path: Path) -> tuple[tuple[tuple[str, tuple[int, ...], int], ...], bool]:
    labels = found.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise InputError(f"{path}: labels must be an object from names to values")
    if all(isinstance(value, str) for value in labels.values()):
        raise InputError(
            f"{path}: labels go from values to names, as in nnU-Net v1 and the Decathlon",
            "nnU-Net v2 has names first; for a Decathlon folder: --dataset msd",
        )
    if "ignore" in labels:
        raise InputError(
            f"{path}: labels: voxels marked `ignore` cannot be left out of losses and scores here",
            "give them a class or the background, and remove the entry `ignore`",
        )
    values = {str(name): _values(value, f"{path}: labels: {name}") for name, value in labels.items()}
    if values.pop("background", None) != (0,):
        raise InputError(f"{path}: labels must contain background, with the value 0")
    for name, those in values.items():
        if bad := [value for value in those if value not in VALUES]:
            raise InputError(f"{path}: labels: {name}: {bad[0]} is not between 1 and 255")
    if not values:
        raise InputError(f"{path}: labels has nothing but the background")
    if all(len(those) == 1 for those in values.values()):
        numbers = [value for (value,) in values.values()]
        if len(set(numbers)) != len(numbers):
            raise InputError(f"{path}: labels: a value has two names")
        return tuple((name, those, those[0]) for name, those in values.items()), False
    return _painted(values, found.get("regions_class_order"), path), True


def _values(value: Any, field: str) -> tuple[int, ...]:
    several = value if isinstance(value, list) else [value]
    if not several or any(not isinstance(part, int) or isinstance(part, bool) for part in several):
        raise InputError(f"{field}: {value!r} is neither a whole number nor a list of them")
    if len(set(several)) != len(several):
        raise InputError(f"{field}: {value!r} names a value twice")
    return tuple(several)


def _painted(
    values: dict[str, tuple[int, ...]], order: Any, path: Path
) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    """Regions with the value each is painted with.

    Raises:
        InputError: painting the true regions would not give the true regions back.
    """
    field = f"{path}: regions_class_order"
    if not isinstance(order, list) or len(order) != len(values):
        raise InputError(f"{field} must list one label value for each of the {len(values)} regions, in their order")
    paints = _values(order, field)
    for value in sorted({value for those in values.values() for value in those}):
        painted = [paint for those, paint in zip(values.values(), paints, strict=True) if value in those][-1]
        for name, those in values.items():
            if (painted in those) != (value in those):
                raise InputError(
                    f"{field} {order}: painted in this order, voxels of label {value} become {painted}, "
                    f"which changes region {name}",
                    "list larger regions first, each with a value that no later region within it has",
                )
    return tuple((name, those, paint) for (name, those), paint in zip(values.items(), paints, strict=True))
