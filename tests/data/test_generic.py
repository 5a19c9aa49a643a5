"""Patients by the names of cases, and intensities by the names of channels."""

from pathlib import Path
from typing import Any

import pytest

from mae_bench.data.generic import choose_intensity, with_subjects
from mae_bench.data.split import by_fraction
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout, RawCase

FRAMES = tuple(
    RawCase(name, name, (Path(name),))
    for patient in range(8)
    for frame in (1, 12)
    for name in [f"patient{patient:03}_frame{frame:02}"]
)
LAYOUT = Layout(Path(), FRAMES, ("cine",), {1: "a"})


@pytest.mark.parametrize("pattern", [r"(patient\d+)_", r"patient\d+"])
def test_cases_of_one_patient_stay_together(pattern: str) -> None:
    split = by_fraction(with_subjects(LAYOUT, pattern).cases, val=0.2, test=0.25)
    sides = [{case.partition("_")[0] for case in side} for _, side in split]
    assert len(sides) == 3
    assert len(set.union(*sides)) == sum(map(len, sides)) == 8
    assert sum(len(side) for _, side in split) == len(FRAMES)
    assert with_subjects(LAYOUT, "") is LAYOUT


@pytest.mark.parametrize(
    ("pattern", "told"), [("(", "not a regular expression"), (r"(sub-\d+)", "names no patient in")]
)
def test_what_names_nobody_is_refused(pattern: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        with_subjects(LAYOUT, pattern)


@pytest.mark.parametrize(
    ("channels", "kind", "expected"),
    [
        (("CT",), "auto", ("window", -10, 90)),
        (("ct",), "auto", ("window", -10, 90)),
        (("MRI", "T2"), "auto", ("zscore", None, None)),
        (("rgb_to_0_1",) * 3, "auto", ("window", 0, 255)),
        (("CT",), "zscore", ("zscore", None, None)),
        (("T1",), "window", ("window", -10, 90)),
    ],
)
def test_intensity(channels: tuple[str, ...], kind: Any, expected: tuple[Any, ...]) -> None:
    found = choose_intensity(kind, -10, 90, channels)
    assert (found.kind, found.low, found.high) == expected


def test_channels_that_ask_for_different_things_are_refused() -> None:
    with pytest.raises(InputError, match="one normalisation for all channels"):
        choose_intensity("auto", 0, 1, ("CT", "PET"))
