"""Protocols: normalisation by the names of channels, and the folds of splits_final.json."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mae_bench.data.generic import choose_intensity
from mae_bench.data.nifti import finest_spacing
from mae_bench.data.split import by_fraction, by_hash
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout, RawCase
from mae_bench.task import Preprocessing, Protocol, Split
from mae_bench.values import digest
from mae_bench_plugins.datasets.nnunet import NNUNetOptions

FOLDS_FILE = "splits_final.json"
SELECTION = 0.1  # share of a fold's training cases that choose the checkpoint


class FoldProtocol(Protocol):
    """A protocol that carries its sides."""

    sides: Split


def clean(options: NNUNetOptions, layout: Layout) -> Protocol:
    """Shares by hash."""
    if options.fold:
        raise UsageError(f"--fold {options.fold}: only protocol nnunet-folds has folds, which needs {FOLDS_FILE}")
    return Protocol(
        name="clean-v1",
        summary="10 % validation and 25 % test cases by hash; native space; label-free pre-training crops",
        preprocessing=_preprocessing(options, layout),
        distance_unit=_unit(options),
    )


def folds(options: NNUNetOptions, layout: Layout) -> FoldProtocol:
    """The validation cases of a fold are the test cases here; a tenth of its training cases choose the checkpoint.

    The version is a digest of the file: scores of different folds must have neither one key nor one table.

    Raises:
        UsageError: no such fold.
        InputError: splits_final.json is damaged, puts a case on both sides, or names cases that are not there.
    """
    path = layout.root / FOLDS_FILE
    try:
        found: Any = json.loads(path.read_text())
        sides = [(_ids(fold["train"]), _ids(fold["val"])) for fold in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: must be a list of objects with the lists train and val of case names: "
            f"{type(error).__name__}: {error}"
        ) from error
    if options.fold >= len(sides):
        raise UsageError(f"--fold {options.fold}: {FOLDS_FILE} has {len(sides)} folds, counted from 0")
    train, test = sides[options.fold]
    if shared := sorted(set(train) & set(test)):
        raise InputError(f"{path}: fold {options.fold}: both in train and in val: {', '.join(shared)}")
    known = {case.id for case in layout.cases} | layout.problems.keys()
    if missing := sorted({*train, *test} - known):
        raise InputError(f"{path}: fold {options.fold}: no such cases: {', '.join(missing)}")
    if len(train) < 2 or not test:
        raise InputError(f"{path}: fold {options.fold}: needs at least two train cases and one val case")
    val = _selection(train, {case.id: case.subject for case in layout.cases})
    return FoldProtocol(
        name="nnunet-folds",
        version=int(digest(sides)[:8], 16),
        summary=f"fold {options.fold} of {len(sides)} of {FOLDS_FILE}: its val cases are tested, 10 % of its train "
        "cases are held out to choose the checkpoint; native space; label-free pre-training crops",
        preprocessing=_preprocessing(options, layout),
        distance_unit=_unit(options),
        sides=Split(train=tuple(sorted(set(train) - set(val))), val=tuple(sorted(val)), test=tuple(sorted(test))),
    )


def split(cases: Sequence[RawCase], protocol: Protocol) -> Split:
    """Divide the usable cases.

    Raises:
        InputError: a side of the fold has no usable case, or there are fewer than three cases.
    """
    if not isinstance(protocol, FoldProtocol):
        return by_fraction(cases, val=0.1, test=0.25)
    there = {case.id for case in cases}
    left = Split(**{side: tuple(case for case in ids if case in there) for side, ids in protocol.sides})
    for side, ids in left:
        if not ids:
            raise InputError(f"{FOLDS_FILE}: none of the {side} cases can be used", "mend them, or try another --fold")
    return left


def _preprocessing(options: NNUNetOptions, layout: Layout) -> Preprocessing:
    spacing = None if options.ndim == 2 else options.spacing or finest_spacing(layout)
    intensity = choose_intensity(options.intensity, options.low, options.high, layout.channels)
    return Preprocessing(spacing=spacing, intensity=intensity)


def _selection(train: Sequence[str], subject: Mapping[str, str]) -> list[str]:
    """A tenth of the subjects of a fold's training cases, at least one and not all of them; all of their cases."""
    subjects = by_hash([subject.get(case, case) for case in train])
    if len(subjects) < 2:
        raise InputError(f"{FOLDS_FILE}: the train cases of a fold show one patient; choosing a checkpoint needs two")
    chosen = set(subjects[: max(1, round(SELECTION * len(subjects)))])
    return [case for case in train if subject.get(case, case) in chosen]


def _unit(options: NNUNetOptions) -> Any:
    """Pixels of a PNG have no size."""
    return "voxel" if options.ndim == 2 else "mm"


def _ids(names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("train and val must be lists of case names")
    if len(set(names)) != len(names):
        raise ValueError("a case is listed twice on one side")
    return names
