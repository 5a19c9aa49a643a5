"""Ways to divide cases; subjects never cross sides."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mae_bench.errors import InputError
from mae_bench.interfaces import RawCase
from mae_bench.task import Split


def by_hash(names: Sequence[str]) -> list[str]:
    """Order names by their SHA-256: a shuffle that needs no seed and keeps its order when names are added."""
    return sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def by_fraction(cases: Sequence[RawCase], val: float, test: float) -> Split:
    """Put a share of the subjects in validation and test, at least one each, the rest in training.

    Raises:
        InputError: fewer than three subjects.
    """
    subjects = by_hash([case.subject for case in cases])
    if len(subjects) < 3:
        raise InputError(f"{len(subjects)} subjects: training, validation and test need at least one each")
    tests = max(1, round(test * len(subjects)))
    vals = max(1, round(val * len(subjects)))
    side = dict.fromkeys(subjects[:tests], "test") | dict.fromkeys(subjects[tests : tests + vals], "val")
    of: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for case in sorted(cases, key=lambda case: case.id):
        of[side.get(case.subject, "train")].append(case.id)
    return Split(train=tuple(of["train"]), val=tuple(of["val"]), test=tuple(of["test"]))


def shuffled_fold(cases: Sequence[RawCase], folds: int, fold: int, seed: int) -> Split:
    """The cases in their listed order, shuffled, every `folds`-th one tested: MONAI's CrossValidation.

    There is no third side: `val` repeats `test`, as in the paper (PAPER 2c, D3).

    Raises:
        InputError: fewer cases than folds.
    """
    if len(cases) < folds:
        raise InputError(f"{len(cases)} cases cannot be divided into {folds} folds")
    order = list(range(len(cases)))
    np.random.RandomState(seed).shuffle(order)
    tested = set(order[fold::folds])
    test = tuple(cases[index].id for index in sorted(tested))
    train = tuple(case.id for index, case in enumerate(cases) if index not in tested)
    return Split(train=train, val=test, test=test)


def labelled_subset(train: Sequence[str], share: float, seed: int) -> tuple[str, ...]:
    """The training cases whose labels may be used: a share of them, at least one; smaller shares are subsets."""
    count = max(1, round(share * len(train)))
    order = np.random.default_rng([seed, len(train)]).permutation(len(train))
    return tuple(sorted(sorted(train)[index] for index in order[:count]))
