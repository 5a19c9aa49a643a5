"""Which of the 30 labelled cases are on which side, by the numbers in their file names."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mae_bench.data.split import by_hash
from mae_bench.errors import InputError
from mae_bench.interfaces import RawCase
from mae_bench.task import Protocol, Split

NUMBERS = (*range(1, 11), *range(21, 41))
# PAPER 2b: the lists of the file that the paper's author names.
PAPER_TRAIN = (5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40)
PAPER_TEST = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
# From memory, not from the file itself: a dataset_0.json in the data directory goes first.
MONAI_TEST = tuple(range(35, 41))
MONAI_FILE = "dataset_0.json"
FOLDS = 5
VALIDATION = 3  # cases that choose the checkpoint, a tenth of all
NAME = re.compile(r"img(\d{4})\.nii(\.gz)?")


class SplitProtocol(Protocol):
    """A protocol that carries its sides. fixed: every case must be there; otherwise those that are there are used."""

    sides: Split
    fixed: bool = True


def case_id(number: int) -> str:
    """`img0001` for 1."""
    return f"img{number:04d}"


def fold_sides(fold: int) -> Split:
    """6 test cases, 3 validation cases from the next fold, 21 training cases; each case is tested in one fold."""
    order = by_hash([case_id(number) for number in NUMBERS])
    test = order[fold::FOLDS]
    val = order[(fold + 1) % FOLDS :: FOLDS][:VALIDATION]
    return Split(
        train=tuple(sorted(set(order) - set(test) - set(val))), val=tuple(sorted(val)), test=tuple(sorted(test))
    )


def paper_sides() -> Split:
    """18 training and 12 test cases; there is no third side: `val` repeats `test` (PAPER 2b, D3)."""
    return _two_sides(PAPER_TRAIN, PAPER_TEST)


def monai_sides(root: Path, folder: Path) -> tuple[Split, Path | None]:
    """24 training cases and 6 that choose the checkpoint and are scored.

    Args:
        root: the data directory.
        folder: that of the images' folder; dataset_0.json is looked for in both.

    Returns:
        The sides, and the file they were read from; None when they are MONAI_TEST against the rest.

    Raises:
        InputError: there is a dataset_0.json that does not divide official cases in two.
    """
    path = next((path for path in (folder / MONAI_FILE, root / MONAI_FILE) if path.is_file()), None)
    if path is None:
        return _two_sides([number for number in NUMBERS if number not in MONAI_TEST], MONAI_TEST), None
    try:
        found = json.loads(path.read_text())
        train, test = (_numbers(found[side], f"{path}: {side}") for side in ("training", "validation"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: must be JSON with the lists `training` and `validation` of objects with `image`: "
            f"{type(error).__name__}: {error}",
            "mend or remove it; without it img0035 to img0040 are validated",
        ) from error
    if shared := sorted(set(train) & set(test)):
        names = ", ".join(map(case_id, shared))
        raise InputError(f"{path}: both in training and in validation: {names}", "a case must be on one side only")
    return _two_sides(train, test), path


def choose(
    sides: Split,
    cases: Sequence[RawCase],
    name: str,
    *,
    fixed: bool,
    problems: Mapping[str, str] = MappingProxyType({}),
) -> Split:
    """The sides as far as their cases are there.

    Args:
        sides, cases, name: the split, the usable cases, and the protocol's name for messages.
        fixed: every case must be there.
        problems: what is wrong with cases, by case, for messages.

    Raises:
        InputError: `fixed` and some are not, or a side is left empty; names them.
    """
    there = {case.id for case in cases}
    wanted = {*sides.train, *sides.val, *sides.test}
    if fixed and (missing := sorted(wanted - there)):
        raise InputError(
            f"protocol {name} divides {len(wanted)} given cases; missing: {', '.join(missing)}",
            "add them, or take --protocol clean-v1, which divides the cases that are there",
            [problems[case] for case in missing if case in problems],
        )
    left = Split(**{side: tuple(case for case in ids if case in there) for side, ids in sides})
    for side, ids in left:
        if not ids:
            raise InputError(
                f"protocol {name}: no {side} case is there, it needs one of {', '.join(dict(sides)[side])}",
                "add cases, or try another --fold",
            )
    return left


def _two_sides(train: Sequence[int], test: Sequence[int]) -> Split:
    tested = tuple(map(case_id, sorted(test)))
    return Split(train=tuple(map(case_id, sorted(train))), val=tested, test=tested)


def _numbers(entries: Any, field: str) -> list[int]:
    if not isinstance(entries, list) or not entries:
        raise TypeError(f"{field} is not a list of cases")
    numbers = []
    for place, entry in enumerate(entries):
        name = str(entry["image"]).rsplit("/", 1)[-1]
        match = NAME.fullmatch(name)
        if match is None or int(match[1]) not in NUMBERS or int(match[1]) in numbers:
            raise ValueError(f"{field}[{place}]: {name!r} is not one of the 30 labelled cases, or is there twice")
        numbers.append(int(match[1]))
    return numbers
