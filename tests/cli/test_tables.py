"""What a person sees on a terminal of eighty columns."""

from pathlib import Path

import pytest

from mae_bench.cli import output
from tests.cli.test_light import mae_bench
from tests.files.records import make_run, write_run

MAE = {"pretrain.name": "mae", "pretrain.options": {"ratio": 0.75}}


def test_results_of_one_data_set_fit_a_terminal(tmp_path: Path) -> None:
    """What all records share is in the title; two runs of one pre-training are told apart by what differs."""
    for seed in (0, 1):
        for ratio in (0.5, 0.75):
            options = {"pretrain.options": {"ratio": ratio}, "seed": seed, "pretrain_seed": seed}
            write_run(tmp_path / "store" / "records", make_run(MAE | options))
    answer = mae_bench(tmp_path, "results", "list", "--store", "store", COLUMNS="80")
    title, _, heads, _, *rows, _ = answer.stdout.splitlines()
    assert title == "4 records, status ok, dataset brats, protocol clean-v1, labels 1, metric dice"
    assert [head.strip() for head in heads.strip("┃").split("┃")] == ["key", "method", "seed", "value", "95 % interval"]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    assert [(method, seed) for _, method, seed, *_ in cells] == [
        ("mae, ratio 0.5", "0"), ("mae, ratio 0.5", "1"), ("mae, ratio 0.75", "0"), ("mae, ratio 0.75", "1"),
    ]  # fmt: skip
    assert max(map(len, answer.stdout.splitlines())) <= 80


def test_seeds_of_pre_training_are_told_where_they_differ(tmp_path: Path) -> None:
    write_run(tmp_path / "records", make_run({"seed": 1, "pretrain_seed": 0}))
    assert "1 on 0" in mae_bench(tmp_path, "results", "list", "--store", ".").stdout


def test_no_results_are_no_table(tmp_path: Path) -> None:
    assert mae_bench(tmp_path, "results", "list", "--store", "none").stdout.strip() == "0 records"


def test_paths_are_not_broken(tmp_path: Path) -> None:
    """So that they can be copied."""
    store = tmp_path / ("a" * 90)
    path = write_run(store / "records", make_run())
    answer = mae_bench(tmp_path, "show", path.stem, "--no-open", "--store", str(store), COLUMNS="80")
    assert f"record: {path}" in answer.stdout.splitlines()


def test_texts_are_no_markup_and_empty_columns_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(None, False, lambda: output.make_table("t", ["a", "b"], [("x[bold]=[1, 2]", ""), ("y", "")]))
    printed = capsys.readouterr().out
    assert "x[bold]=[1, 2]" in printed
    assert "b" not in printed.splitlines()[2]


def test_what_every_row_says_may_be_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("x", "p", "q"), ("y", "p", "q")]
    output.show(None, False, lambda: output.make_table("t", ["a", "b", "c"], rows, once=["b"]))
    title, _, heads, *_ = capsys.readouterr().out.splitlines()
    assert (title, heads.split()) == ("t, b p", ["┃", "a", "┃", "c", "┃"])
