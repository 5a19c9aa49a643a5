"""Tables of outcomes: the two forms, every fault by its line, and how `brats` reads and writes them."""

import os
from pathlib import Path

import numpy as np
import pytest

from mae_bench.data.outcomes import read_outcomes
from mae_bench.data.source import open_data
from mae_bench.errors import InputError, UsageError
from mae_bench.metrics.survival import concordance
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench.store import Store
from mae_bench_plugins.datasets.brats import BraTS, BraTSOptions
from mae_bench_plugins.datasets.brats.survival import log_hazard, write_outcomes
from tests.files.decathlon import BRATS_2021, Case, plain_cases, write_brats_folders, write_msd

LABELS = {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
CHANNELS = ("FLAIR", "T1w", "t1gd", "T2w")
BRATS_2020 = """Brats20ID,Age,Survival_days,Extent_of_Resection
BraTS20_Training_001,60.463,289,GTR
BraTS20_Training_002,52.263,616,GTR
BraTS20_Training_084,42.8,ALIVE (361 days later),NA
"""


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_outcomes(tmp_path: Path) -> None:
    path = written(tmp_path / "outcomes.csv", "case,time,event\na,12,1\nb,30.5,0\n")
    assert read_outcomes(path) == {"a": (12.0, 1.0), "b": (30.5, 0.0)}


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    """As a spreadsheet saves it: byte order mark, carriage returns, quotes, spaces, an empty line at the end."""
    text = '\ufeffage,event,case,time\r\n61,1," a ",12\r\n70,0,b, 30 \r\n\r\n'
    assert read_outcomes(written(tmp_path / "x.csv", text)) == {"a": (12.0, 1.0), "b": (30.0, 0.0)}


def test_brats_2020(tmp_path: Path) -> None:
    """Who is `ALIVE (361 days later)` was censored then."""
    assert read_outcomes(written(tmp_path / "survival_info.csv", BRATS_2020)) == {
        "BraTS20_Training_001": (289.0, 1.0),
        "BraTS20_Training_002": (616.0, 1.0),
        "BraTS20_Training_084": (361.0, 0.0),
    }


FAULTS = [
    ("a,soon,1", "line 3: time is 'soon', expected a number of days above 0"),
    ("a,nan,1", "line 3: time is 'nan'"),
    ("a,inf,1", "line 3: time is 'inf'"),
    ("a,0,1", "line 3: time is '0'"),
    ("a,-4,1", "line 3: time is '-4'"),
    ("a,,1", "line 3: time is ''"),
    ("a,12,dead", "line 3: event is 'dead', expected 0 or 1"),
    ("a,12,", "line 3: event is ''"),
    (",12,1", "line 3: no case is named"),
    ("a,12", "line 3: expected 3 fields"),
    ("a,12,1,9", "line 3: expected 3 fields"),
    ("z,12,1", "line 3: case z is listed twice"),
]


@pytest.mark.parametrize(("line", "fault"), FAULTS)
def test_a_faulty_line_is_named(line: str, fault: str, tmp_path: Path) -> None:
    path = written(tmp_path / "outcomes.csv", f"case,time,event\nz,5,0\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_outcomes(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{path}: {fault}")
    assert "case,time,event" in caught.value.hint


def test_all_faulty_lines_are_named_at_once(tmp_path: Path) -> None:
    text = "case,time,event\n" + "\n".join(line for line, _ in FAULTS[:5])
    with pytest.raises(InputError) as caught:
        read_outcomes(written(tmp_path / "outcomes.csv", text))
    assert [line.split(": ")[1] for line in caught.value.problems] == [f"line {number}" for number in range(2, 7)]


@pytest.mark.parametrize("days", ["ALIVE", "ALIVE (soon days later)", "NA", ""])
def test_a_faulty_line_of_brats_2020_is_named(days: str, tmp_path: Path) -> None:
    path = written(tmp_path / "survival_info.csv", BRATS_2020 + f"BraTS20_Training_099,60,{days},NA\n")
    with pytest.raises(InputError) as caught:
        read_outcomes(path)
    assert "line 5: Survival_days is" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"columns \(none\), expected case, time, event or Brats20ID, Survival_days"),
        ("case,days\na,1\n", "columns case, days, expected"),
        ("case,time,event\n", "no cases"),
        ("case,time,event,time\na,1,1,2\n", "column time is there more than once"),
        (b"case,time,event\n\xff,1,1\n", "cannot be read"),
        ('case,time,event\n"a,1,1\n', "not valid CSV"),
        ('case,time,event\n"a"b,1,1\n', "line 2: not valid CSV"),
    ],
)
def test_what_is_no_table_is_refused(text: str | bytes, fault: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        read_outcomes(written(tmp_path / "outcomes.csv", text))
    assert str(tmp_path / "outcomes.csv") in caught.value.what


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"outcomes.csv: missing"):
        read_outcomes(tmp_path / "outcomes.csv")
    (tmp_path / "outcomes.csv").mkdir()
    with pytest.raises(InputError, match=r"outcomes.csv: cannot be read"):
        read_outcomes(tmp_path / "outcomes.csv")


# --- in brats ---------------------------------------------------------------------------------------------------------

SURVIVAL = BraTSOptions(target="survival", subjects=8, demo_spacing=6)


def table(names: list[str]) -> str:
    return "case,time,event\n" + "".join(f"{name},{100 + place},{place % 2}\n" for place, name in enumerate(names))


def test_cases_get_their_outcome(tmp_path: Path) -> None:
    cases = plain_cases(4)
    write_msd(tmp_path, cases, channels=CHANNELS, labels=LABELS)
    written(tmp_path / "outcomes.csv", table([case.id for case in cases] + ["elsewhere"]))
    brats = BraTS()
    layout = brats.scan(SURVIVAL, tmp_path)
    assert [case.findings for case in layout.cases] == [(100, 0), (101, 1), (102, 0), (103, 1)]
    assert layout.problems == {}
    protocols = brats.protocols(SURVIVAL, layout)
    assert list(protocols) == ["clean-v1"]
    task = brats.task(SURVIVAL, layout, protocols["clean-v1"]())
    assert (task.kind, task.findings, task.outputs, task.flip_axes) == ("survival", ("time", "event"), 1, (0, 1, 2))
    assert all(case.findings == () for case in brats.scan(BraTSOptions(), tmp_path).cases)


def test_cases_without_an_outcome_are_refused_unless_skipped(tmp_path: Path) -> None:
    root = tmp_path / "data"
    cases = plain_cases(6)
    write_msd(root, cases, channels=CHANNELS, labels=LABELS)
    written(root / "outcomes.csv", table([case.id for case in cases[:4]]))
    with pytest.raises(InputError, match="2 of 6 cases") as caught:
        open_data(BraTS(), SURVIVAL, Store(tmp_path / "s"), data=root, demo=False, protocol=None)
    assert [f"no outcome of {case.id}" in line for case, line in zip(cases[4:], caught.value.problems, strict=True)]
    assert "--skip-bad" in caught.value.hint
    data = open_data(BraTS(), SURVIVAL, Store(tmp_path / "s"), data=root, demo=False, protocol=None, skip_bad=True)
    assert sorted(data.prepared.facts) == [case.id for case in cases[:4]]
    assert sorted(data.prepared.problems) == [case.id for case in cases[4:]]


def test_brats_2020_folders_with_their_own_table(tmp_path: Path) -> None:
    names = ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_084"]
    write_brats_folders(tmp_path, [Case(name, "LPS") for name in names], BRATS_2021, (1, 2, 4), ".nii")
    written(tmp_path / "survival_info.csv", BRATS_2020)
    layout = BraTS().scan(SURVIVAL, tmp_path)
    assert {case.id: case.findings for case in layout.cases} == {
        names[0]: (289, 1),
        names[1]: (616, 1),
        names[2]: (361, 0),
    }
    assert layout.labels.keys() == {1, 2, 4}
    written(tmp_path / "outcomes.csv", table(names))
    assert BraTS().scan(SURVIVAL, tmp_path).cases[0].findings == (100, 0)


def test_without_a_table_survival_is_refused(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(3), channels=CHANNELS, labels=LABELS)
    with pytest.raises(InputError, match=r"outcomes.csv: missing"):
        BraTS().scan(SURVIVAL, tmp_path)


def test_a_head_for_regions_does_not_fit_survival() -> None:
    chosen = resolve(Request("brats", "mae", recipe="smoke", settings={"dataset.target": "survival"}), registry())
    assert chosen.plugins["head"].plugin.name == "cox"
    with pytest.raises(UsageError, match="head unetr needs segmentation"):
        resolve(Request("brats", "mae", head="unetr", flags={"target": "survival"}), registry())
    with pytest.raises(UsageError, match="head cox needs survival"):
        resolve(Request("brats", "mae", head="cox"), registry())


def test_the_stand_in_has_outcomes(tmp_path: Path) -> None:
    data = open_data(BraTS(), SURVIVAL, Store(tmp_path), data=None, demo=True, protocol=None)
    assert len(data.prepared.facts) == 8
    files = list(tmp_path.glob("demo/*/files/*.csv"))
    assert [file.name for file in files] == ["outcomes.csv"]
    assert {case: facts.findings for case, facts in data.prepared.facts.items()} == read_outcomes(files[0])
    BraTS().write_demo(SURVIVAL, tmp_path, lambda done, total: None)
    assert (tmp_path / "outcomes.csv").read_bytes() == files[0].read_bytes()
    os.remove(tmp_path / "outcomes.csv")
    BraTS().write_demo(SURVIVAL.model_copy(update={"target": "regions"}), tmp_path, lambda done, total: None)
    assert not (tmp_path / "outcomes.csv").exists()


def test_drawn_outcomes_follow_the_tumour(tmp_path: Path) -> None:
    """Volumes order the deaths well but not perfectly, and some patients are censored."""
    rng = np.random.default_rng(0)
    whole = rng.uniform(15, 150, 400)
    volumes = {f"c{number}": (ml, ml * rng.uniform(0.1, 0.5)) for number, ml in enumerate(whole)}
    write_outcomes(tmp_path, volumes)
    outcomes = np.array([read_outcomes(tmp_path / "outcomes.csv")[case] for case in volumes])
    risk = np.array([log_hazard(*pair) for pair in volumes.values()])
    assert 0.7 < concordance(outcomes[:, 0], outcomes[:, 1], risk) < 0.95
    assert 0.4 < outcomes[:, 1].mean() < 0.9
    assert log_hazard(60, 15) == pytest.approx(0)
