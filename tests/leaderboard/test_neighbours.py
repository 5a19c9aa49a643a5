"""What records must keep together, and what is said of encoders that have seen test cases."""

from pathlib import Path

import pytest

from mae_bench.errors import UsageError
from mae_bench.leaderboard.board import make_boards
from mae_bench.leaderboard.check import beside_references, check
from mae_bench.leaderboard.contamination import disclosure
from tests.files.records import CASES, IDENTITIES, REAL, make_run, write_run

FOLDER = Path(REAL) / "records"


def test_a_run_is_counted_once(tmp_path: Path) -> None:
    for board in (REAL, "elsewhere"):
        write_run(tmp_path / board / "records", make_run())
    (problem,) = check(tmp_path).problems
    assert "duplicate" in problem


def test_older_rules_of_a_protocol_are_superseded(tmp_path: Path) -> None:
    old = write_run(tmp_path / FOLDER, make_run({"protocol.version": 1}))
    new = write_run(tmp_path / FOLDER, make_run({"protocol.version": 2}))
    (problem,) = check(tmp_path).problems
    assert problem == f"{old}: protocol clean-v1: version 1 is superseded by 2 of {new}"


def test_two_boards_cannot_share_a_page(tmp_path: Path) -> None:
    """Words of a data set's name that move into the protocol's give the same file."""
    honest = write_run(tmp_path / FOLDER, make_run())
    other = write_run(tmp_path / FOLDER, make_run({"dataset.name": "brats-clean", "protocol.name": "v1"}))
    first, second = sorted((honest, other))
    (problem,) = check(tmp_path).problems
    assert problem == f"{second}: its board would be the file {REAL}, as that of {first}"


def test_a_run_is_superseded_by_the_same_with_more_options(tmp_path: Path) -> None:
    """A later version of a plugin has an option more; what it had before is the same."""
    old = write_run(tmp_path / FOLDER, make_run({"pretrain.options": {"ratio": 0.75}}))
    write_run(tmp_path / FOLDER, make_run({"pretrain.options": {"ratio": 0.5, "block": 2}}))
    assert not check(tmp_path).problems
    new = write_run(tmp_path / FOLDER, make_run({"pretrain.options": {"ratio": 0.75, "block": 2}}))
    (problem,) = check(tmp_path).problems
    assert problem == f"{old}: superseded by {new.stem}: the same cell, with options that this one lacks"


def test_records_of_the_same_images_agree_on_them(tmp_path: Path) -> None:
    for seed in (2, 3):
        write_run(tmp_path / FOLDER, make_run({"seed": seed}))
    other = IDENTITIES | {CASES[0]: {"subject": "someone else", "sha256": "ab" * 32}}
    odd = write_run(tmp_path / FOLDER, make_run({"seed": 1}, data={"identities": other}))
    (problem,) = check(tmp_path).problems
    assert problem.startswith(f"{odd}: data.identities: case '{CASES[0]}' is ")


def test_the_same_scores_under_two_keys_are_noted(tmp_path: Path) -> None:
    """It may be right, of a method that draws nothing; a reviewer should know."""
    run = make_run()
    write_run(tmp_path / FOLDER, run)
    write_run(tmp_path / FOLDER, make_run({"seed": 1}, cases=run[1]))
    found = check(tmp_path)
    assert not found.problems
    assert "the same per-case scores" in found.notes[0]


TEST_CASE = IDENTITIES[CASES[0]]


@pytest.mark.parametrize(
    ("seen", "overlaps"),
    [
        ([], False),
        ([{"subject": "a stranger", "sha256": "12" * 32}], False),
        ([{"subject": "", "sha256": ""}], False),
        ([{"subject": "", "sha256": TEST_CASE["sha256"]}], True),
        ([{"subject": TEST_CASE["subject"], "sha256": "12" * 32}], True),
    ],
)
def test_weights_that_have_seen_test_cases_have_a_lane_of_their_own(
    tmp_path: Path, seen: list[dict[str, str]], overlaps: bool
) -> None:
    write_run(tmp_path / FOLDER, make_run())
    foreign = {"pretrain.name": "weights", "pretrain.options": {"path": "x.safetensors"}, "start": "ab" * 32}
    write_run(tmp_path / FOLDER, make_run(foreign, data={"pretrained_on": seen}))
    found = check(tmp_path)
    assert not found.problems
    (board,) = make_boards(found.submissions)
    assert [section.lane for section in board.sections] == (["", "overlap"] if overlaps else [""])
    assert any("lane of its own" in note for note in found.notes) is overlaps


def test_a_patient_on_both_sides_is_an_overlap(tmp_path: Path) -> None:
    shared = IDENTITIES | {CASES[0]: {"subject": IDENTITIES["train_0"]["subject"], "sha256": "12" * 32}}
    record, _ = make_run(data={"identities": shared})
    assert "1 have patients" in disclosure(record)


def test_weights_without_a_manifest_are_noted(tmp_path: Path) -> None:
    foreign = {"pretrain.name": "weights", "pretrain.options": {}, "start": "ab" * 32}
    write_run(tmp_path / FOLDER, make_run(foreign))
    (note,) = check(tmp_path).notes
    assert "not disclosed" in note


def test_every_method_is_set_beside_scratch_and_the_best(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / FOLDER, make_run({"seed": seed}, shift=0.2))
        write_run(
            tmp_path / FOLDER, make_run({"seed": seed, "pretrain.name": "moco", "pretrain.options": {}}, shift=0.1)
        )
        write_run(tmp_path / FOLDER, make_run({"seed": seed, "pretrain.name": "scratch", "pretrain.options": {}}))
    found = {(each.method, each.role): each for each in beside_references(check(tmp_path).submissions)}
    assert set(found) == {
        ("mae", "scratch"), ("mae", "best"), ("moco", "scratch"), ("moco", "best"), ("scratch", "best"),
    }  # fmt: skip
    assert found["mae", "scratch"].test.difference.value == pytest.approx(0.2, abs=0.02)
    assert found["mae", "scratch"].test.p < 0.01
    assert found["mae", "best"].reference == "moco"
    assert found["moco", "best"].test.difference.value == pytest.approx(-0.1, abs=0.02)


def test_a_folder_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError):
            check(folder)
