"""Any task in the Decathlon's layout."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mae_bench.data.source import open_data
from mae_bench.store import Store
from mae_bench_plugins.datasets.msd import MSD, MSDOptions
from tests.files.decathlon import Case, plain_cases, write_msd


def test_regions_exclude_each_other_and_are_ordered_by_value(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(1), labels={7: "spleen", 2: "liver"})
    msd, options = MSD(), MSDOptions()
    layout = msd.scan(options, tmp_path)
    task = msd.task(options, layout, msd.protocols(options, layout)["clean-v1"]())
    assert [(region.name, region.labels, region.paint) for region in task.regions] == [
        ("liver", (2,), 2),
        ("spleen", (7,), 7),
    ]
    assert task.kind == "segmentation"
    assert not task.overlapping
    assert task.outputs == 3
    assert task.channels == ("MRI",)
    assert task.labels == {2: "liver", 7: "spleen"}


def test_the_finest_grid_is_used_unless_another_is_given(tmp_path: Path) -> None:
    write_msd(tmp_path, [Case("a", "PIR", (1.0, 2.0, 3.0)), Case("b", "SLA", (3.0, 1.5, 2.0))])
    msd = MSD()
    layout = msd.scan(MSDOptions(), tmp_path)
    for options, expected in (
        (MSDOptions(), (1.0, 1.5, 2.0)),
        (MSDOptions(spacing=(2.0, 2.0, 2.0)), (2.0, 2.0, 2.0)),
    ):
        assert msd.protocols(options, layout)["clean-v1"]().preprocessing.spacing == expected


def test_the_window_is_part_of_the_protocol_only_when_used(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(1))
    msd = MSD()
    layout = msd.scan(MSDOptions(), tmp_path)
    plain = msd.protocols(MSDOptions(low=-10), layout)["clean-v1"]().preprocessing.intensity
    window = msd.protocols(MSDOptions(intensity="window", low=-10, high=90), layout)[
        "clean-v1"
    ]().preprocessing.intensity
    assert (plain.kind, plain.low, plain.high) == ("zscore", None, None)
    assert (window.kind, window.low, window.high) == ("window", -10, 90)


@pytest.mark.parametrize(
    "options",
    [
        {"spacing": (1, 1)},
        {"spacing": (0, 1, 1)},
        {"spacing": (-1, 1, 1)},
        {"spacing": (float("nan"), 1, 1)},
        {"intensity": "minmax"},
        {"intensity": "window", "low": 100, "high": 100},
        {"intensity": "window", "low": 200, "high": 100},
        {"low": float("nan")},
        {"window": 3},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    """Before any file is read, with the field named."""
    with pytest.raises(ValidationError) as caught:
        MSDOptions(**options)  # type: ignore[arg-type]
    assert any(field in str(caught.value) for field in options)


def test_how_a_file_is_turned_does_not_matter(tmp_path: Path) -> None:
    """The prepared case does not depend on how its file is turned."""
    prepared = []
    for code in ("RAS", "LPS", "PIR", "ASL", "IPL"):
        root = tmp_path / code
        write_msd(root, [Case(f"case_{number}", code, (1.0, 1.5, 2.0)) for number in range(3)], channels=("A", "B"))
        data = open_data(MSD(), MSDOptions(), Store(tmp_path / "store"), data=root, demo=False, protocol=None)
        prepared.append(data.prepared.case("case_1"))
    for case in prepared[1:]:
        np.testing.assert_array_equal(case.image(), prepared[0].image())
        np.testing.assert_array_equal(case.label(), prepared[0].label())
        assert case.facts.start == prepared[0].facts.start


def test_subjects_are_cases(tmp_path: Path) -> None:
    write_msd(tmp_path / "task", plain_cases(20, shape=(6, 6, 6)))
    data = open_data(MSD(), MSDOptions(), Store(tmp_path / "store"), data=tmp_path / "task", demo=False, protocol=None)
    assert (len(data.split.train), len(data.split.val), len(data.split.test)) == (13, 2, 5)
