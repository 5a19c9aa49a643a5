"""Protocols: normalisation by the names of channels, and the folds of splits_final.json."""

import json
from collections.abc import Sequence
from typing import Any

from mae_bench.data.nifti import finest_spacing
from mae_bench.data.split import by_fraction, by_hash
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout, RawCase
from mae_bench.task import Intensity, Preprocessing, Protocol, Split
from mae_bench.values import digest
from mae_bench_plugins.datasets.nnunet import NNUNetOptions

FOLDS_FILE = "splits_final.json"
SELECTION = 0.1  # share of a fold's training cases that choose the checkpoint
# What nnU-Net does with a channel of this name; any other name is z-scored.
CT, COLOUR, OTHER = "ct", "rgb_to_0_1", ("nonorm", "rescale_to_0_1")


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
    val = by_hash(train)[: max(1, round(SELECTION * len(train)))]
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


def intensity(options: NNUNetOptions, channels: Sequence[str]) -> Intensity:
    """One normalisation for all channels.

    Raises:
        InputError: `auto`, and the names of the channels ask for different ones, or for none of ours.
    """
    kind, low, high = options.intensity, options.low, options.high
    if kind == "auto":
        names = [name.casefold() for name in channels]
        special = {name for name in names if name in (CT, COLOUR, *OTHER)}
        if special == {COLOUR} and set(names) == special:
            kind, low, high = "window", 0.0, 255.0
        elif special == {CT} and set(names) == special:
            kind = "window"
        elif special:
            raise InputError(
                f"dataset.json: channel_names {list(channels)}: there is one normalisation for all channels, "
                "and it is z-score or a window",
                "choose with --intensity zscore, or --intensity window --low ... --high ...",
            )
        else:
            kind = "zscore"
    if kind == "zscore":
        return Intensity(kind="zscore")
    return Intensity(kind="window", low=low, high=high)


def _preprocessing(options: NNUNetOptions, layout: Layout) -> Preprocessing:
    spacing = None if options.ndim == 2 else options.spacing or finest_spacing(layout)
    return Preprocessing(spacing=spacing, intensity=intensity(options, layout.channels))


def _unit(options: NNUNetOptions) -> Any:
    """Pixels of a PNG have no size."""
    return "voxel" if options.ndim == 2 else "mm"


def _ids(names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("train and val must be lists of case names")
    if len(set(names)) != len(names):
        raise ValueError("a case is listed twice on one side")
    return names
