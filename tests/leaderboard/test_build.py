"""From records to tables: who shares a table, what methods are called, how ranks read, and what the files say."""

import csv
import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from mae_bench.errors import InputError
from mae_bench.leaderboard import ranking
from mae_bench.leaderboard.board import Board, make_boards
from mae_bench.leaderboard.build import build
from mae_bench.leaderboard.check import check
from mae_bench.leaderboard.figures import board_figures, record_figures
from mae_bench.leaderboard.label import LONGEST, address_of, method_labels, method_of
from mae_bench.leaderboard.ranking import ranked
from tests.files.records import DEMO, REAL, make_run, write_curves, write_run
from tests.test_spec import make_spec

FOLDER = Path(REAL) / "records"
SCRATCH = {"pretrain.name": "scratch", "pretrain.options": {}}


def boards(root: Path) -> list[Board]:
    found = check(root, intervals=False)
    assert not found.problems
    return make_boards(found.submissions)


def write_grid(root: Path) -> None:
    """Scratch and MAE under four ratios, three seeds, two shares of the labels."""
    for seed in (0, 1, 2):
        for labels in (1.0, 0.1):
            common = {"seed": seed, "pretrain_seed": seed, "labels": labels}
            write_run(root / FOLDER, make_run(common | SCRATCH))
            for step, ratio in enumerate((0.25, 0.5, 0.75, 0.9)):
                changes = common | {"pretrain.options": {"ratio": ratio}}
                run = make_run(changes, shift=0.05 * step * labels)
                write_run(root / FOLDER, run)
                write_curves(root / FOLDER, run[0].key)


def names(changes: list[dict[str, Any]]) -> list[str]:
    methods = [method_of(make_spec(**each)) for each in changes]
    labels = method_labels({address_of(method): method for method in methods})
    return [labels[address_of(method)] for method in methods]


def test_a_method_is_called_by_what_sets_it_apart() -> None:
    assert names([{}]) == ["mae"]
    assert names([{}, {"pretrain__name": "scratch", "pretrain__options": {}}]) == ["mae", "scratch"]
    assert names([{}, {"pretrain__options": {"ratio": 0.5}}]) == ["mae, ratio 0.75", "mae, ratio 0.5"]
    small = {"backbone__options": {"size": "small", "patch": [8]}}
    assert names([{}, small]) == ["mae · vit, size tiny", "mae · vit, size small"]
    assert names([{}, {"head__name": "linear", "head__options": {}}]) == ["mae · unetr", "mae · linear"]
    assert names([{}, {"recipe__finetune__lr": 0.5}]) == [
        "mae · finetune.lr 0.001",
        "mae · finetune.lr 0.5",
    ]
    federation = {"sites": 4, "strategy": "fedprox"}
    assert names([{}, {"federation": federation}]) == ["mae", "mae · 4 sites fedprox"]
    assert names([{"federation": federation}, {"federation": federation | {"mu": 1}}]) == [
        "mae · 4 sites fedprox, mu 0.01", "mae · 4 sites fedprox, mu 1.0",
    ]  # fmt: skip


def test_no_two_methods_have_one_name() -> None:
    long = [{"pretrain__options": {"text": "x" * 200 + end}} for end in "ab"]
    found = names(long)
    assert len(set(found)) == 2
    assert all(len(name) <= LONGEST + 10 for name in found)


def test_seeds_share_a_row_and_questions_do_not_share_a_table(tmp_path: Path) -> None:
    write_grid(tmp_path)
    (board,) = boards(tmp_path)
    assert (board.name.slug, [section.labels for section in board.sections]) == (REAL, [1.0, 0.1])
    assert [len(section.methods) for section in board.sections] == [5, 5]
    assert all(list(method.runs) == [0, 1, 2] for section in board.sections for method in section.methods)


@pytest.mark.parametrize(
    "changes",
    [{"protocol.empty": "ignore"}, {"data.fingerprint": "beef"}, {"labels": 0.5}, {"protocol.scored_on": "prepared"}],
)
def test_what_answers_another_question_has_its_own_table(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_run(tmp_path / FOLDER, make_run())
    write_run(tmp_path / FOLDER, make_run(changes | SCRATCH))
    (board,) = boards(tmp_path)
    assert [len(section.methods) for section in board.sections] == [1, 1]
    assert len({section.title for section in board.sections}) == 2


def test_another_protocol_data_set_or_kind_is_another_board(tmp_path: Path) -> None:
    write_run(tmp_path / FOLDER, make_run())
    write_run(tmp_path / FOLDER, make_run({"protocol.name": "paper"}))
    write_run(tmp_path / FOLDER, make_run({"dataset.name": "msd"}))
    write_run(tmp_path / DEMO / "records", make_run(kind="demo"))
    assert [board.name.slug for board in boards(tmp_path)] == [
        "brats-clean-v1-demo", "brats-clean-v1", "brats-paper", "msd-clean-v1",
    ]  # fmt: skip


def test_of_two_pretrainings_under_a_seed_one_is_ranked(tmp_path: Path) -> None:
    write_run(tmp_path / FOLDER, make_run({"seed": 1, "pretrain_seed": 0}))
    write_run(tmp_path / FOLDER, make_run({"seed": 1, "pretrain_seed": 1}))
    (board,) = boards(tmp_path)
    (method,) = board.sections[0].methods
    assert method.runs[1].record.spec.pretrain_seed == 1
    assert [run.record.spec.pretrain_seed for run in method.more] == [0]


def test_ranks_are_those_of_the_standings(tmp_path: Path) -> None:
    write_grid(tmp_path)
    (board,) = boards(tmp_path)
    rows = ranked(board.sections[0])
    assert [row.method.record.spec.pretrain.options.get("ratio") for row in rows][:3] == [0.9, 0.75, 0.5]
    assert (rows[0].low, rows[0].high) == (1, 1)
    assert rows[-1].high == 5
    assert [row.top for row in rows] == [True, False, False, False, False]


def test_single_seeds_of_many_methods_are_ranked_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seed each: tested pair by pair, and no more pairs than can be afforded. The rest has scores and no rank."""
    monkeypatch.setattr(ranking, "MOST_PAIRS", 30)
    for number in range(12):
        write_run(
            tmp_path / FOLDER,
            make_run({"pretrain.options": {"ratio": number / 100}}, shift=number / 500, intervals=False),
        )
    (board,) = boards(tmp_path)
    rows = ranked(board.sections[0])
    compared = [row for row in rows if row.low]
    assert len(compared) == 8  # 28 pairs; a ninth would make 36
    assert rows[: len(compared)] == compared
    assert all(row.score is not None for row in rows)


def test_figures_are_there_when_there_is_something_to_see(tmp_path: Path) -> None:
    write_grid(tmp_path)
    (board,) = boards(tmp_path)
    found = board_figures(board, [(section, ranked(section)) for section in board.sections])
    assert [figure["title"] for figure in found] == [
        "Learning curve",
        "Mask ratio",
        "Share of the labels",
        "Score against cost",
    ]
    ratio = found[1]["data"]
    assert [line["x"] for line in ratio] == [[0.25, 0.5, 0.75, 0.9]] * 2
    share = found[2]["data"]
    assert {len(line["x"]) for line in share} == {2}
    for figure in found:
        go.Figure(data=figure["data"], layout=figure["layout"])  # refuses what Plotly does not know
    alone = tmp_path / "alone"
    write_run(alone / FOLDER, make_run())
    (board,) = boards(alone)
    assert not board_figures(board, [(section, ranked(section)) for section in board.sections])


def test_figures_of_a_record(tmp_path: Path) -> None:
    run = make_run()
    write_run(tmp_path / FOLDER, run)
    write_curves(tmp_path / FOLDER, run[0].key, sites=True)
    (submission,) = check(tmp_path).submissions
    found = record_figures(submission)
    assert [figure["title"] for figure in found] == ["Test cases", "Training", "Sites"]
    assert [line["name"] for line in found[2]["data"]] == ["site-0", "site-1"]
    for figure in found:
        go.Figure(data=figure["data"], layout=figure["layout"])


def test_the_files_say_what_the_pages_say(tmp_path: Path) -> None:
    write_grid(tmp_path / "in")
    built = build(tmp_path / "in", tmp_path / "out")
    assert (built.boards, built.records) == ([REAL], 30)
    rows = list(csv.DictReader((tmp_path / "out/boards" / f"{REAL}.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert rows[0] | {"section": "all labels", "tied_at_the_top": "yes", "rank_low": "1", "seeds": "0 1 2"} == rows[0]
    assert float(rows[0]["low"]) < float(rows[0]["score"]) < float(rows[0]["high"])
    text = (tmp_path / "out/boards" / f"{REAL}.md").read_text()
    assert "| 1 (tied at the top) | mae, ratio 0.9 |" in text
    page = (tmp_path / "out/boards" / f"{REAL}.html").read_text()
    assert f"{float(rows[0]['score']):.4f}" in page
    keys = rows[0]["records"].split()
    assert all((tmp_path / "out/records" / f"{key}.html").is_file() for key in keys)
    assert json.loads((tmp_path / "out/leaderboard.json").read_text())["records"] == 30


def test_a_site_replaces_a_site_and_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path / "in" / FOLDER, make_run())
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no site that was built here"):
        build(tmp_path / "in", out)
    assert (out / "thesis.tex").read_text() == "years of work"
    (out / "thesis.tex").unlink()
    build(tmp_path / "in", out)
    build(tmp_path / "in", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_nothing_is_built_from_records_with_faults(tmp_path: Path) -> None:
    path = write_run(tmp_path / "in" / FOLDER, make_run())
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 3'))
    with pytest.raises(InputError) as error:
        build(tmp_path / "in", tmp_path / "out")
    assert path.stem in error.value.problems[0]
    assert not (tmp_path / "out").exists()


def test_a_build_is_the_same_each_time(tmp_path: Path) -> None:
    write_grid(tmp_path / "in")
    for out in ("a", "b"):
        build(tmp_path / "in", tmp_path / out)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
