"""Whole grids through the command line: run, followed, killed, continued, shared by two."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mae_bench.grid.file import load_grid
from mae_bench.store import Store
from tests.grid.tiny import computed, write_grid

TWO = '[[sweep]]\npretrain = ["scratch", "mae"]\nseed = [0, 1]\n'


def start(*words: str, store: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mae_bench", "grid", *words, "--store", str(store), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def grid(*words: str, store: Path, code: int = 0) -> Any:
    process = start(*words, store=store)
    answer, told = process.communicate(timeout=300)
    assert process.returncode == code, told[-3000:]
    return json.loads(answer)


def scores(store: Path) -> dict[str, Any]:
    """What must not depend on how often a run was stopped: all of the records but what it cost."""
    found = {}
    for path in (store / "records").glob("*.json"):
        record = json.loads(path.read_text())
        found[path.stem] = {name: record[name] for name in ("status", "spec", "metrics", "cases", "data", "transfer")}
    return found


@pytest.mark.slow
def test_plan_run_status_and_run_again(tmp_path: Path) -> None:
    file, store = write_grid(tmp_path / "g.toml", TWO + '[[sweep]]\npretrain = "lsae"\n'), tmp_path / "store"
    planned = grid("plan", str(file), store=store)
    assert [cell["state"] for cell in planned["cells"]] == ["to do"] * 4 + ["refused"]
    assert "needs 2d" in planned["cells"][-1]["reason"]
    assert planned["predicted"]["seconds"] > 0
    assert len(planned["tasks"]) == 6
    assert grid("status", str(file), store=store, code=2)["error"]["exit_code"] == 2
    ran = grid("run", str(file), store=store)
    assert [cell["state"] for cell in ran["cells"]] == ["done"] * 4 + ["refused"]
    assert grid("status", str(file), store=store)["counts"] == {"done": 6}
    assert set(computed(Store(store), load_grid(file)).values()) == {1}
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.json")}
    assert grid("run", str(file), store=store)["failed"] == {}
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.json")} == before
    assert grid("status", str(file), store=store)["counts"] == {"found": 4, "done": 2}
    assert [cell["state"] for cell in grid("plan", str(file), "--no-probe", store=store)["cells"]][:4] == ["done"] * 4


@pytest.mark.slow
def test_a_failed_cell_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    """A rate at which the encoder diverges: it and its cell fail with the reason, exit code 4 names them."""
    sweeps = '[[sweep]]\npretrain = "scratch"\n[[sweep]]\npretrain = "mae"\nset = { "pretrain.lr" = 1e30 }\n'
    file, store = write_grid(tmp_path / "g.toml", sweeps, **{"pretrain.steps": 40}), tmp_path / "store"
    process = start("run", str(file), store=store)
    answer, told = process.communicate(timeout=300)
    assert process.returncode == 4
    assert "diverged" in told
    document = json.loads(answer.splitlines()[-1]) if "\n{" not in answer else answer
    assert document
    records = [json.loads(path.read_text()) for path in (store / "records").glob("*.json")]
    assert {record["spec"]["pretrain"]["name"]: record["status"] for record in records} == {
        "scratch": "ok", "mae": "failed",
    }  # fmt: skip
    assert "its pre-training failed: pretrain diverged" in next(r["reason"] for r in records if r["status"] == "failed")


@pytest.mark.slow
def test_killed_ten_times_equals_uninterrupted(tmp_path: Path) -> None:
    """Kill -9 at random moments; the records are those of a run that was left alone, and nothing is done twice."""
    settings = {"pretrain.steps": 120, "finetune.steps": 60}
    file = write_grid(tmp_path / "g.toml", TWO, **settings)
    grid("run", str(file), store=tmp_path / "straight")
    chance, store = random.Random(4), tmp_path / "killed"
    kills = 0
    while kills < 10:
        process = start("run", str(file), "--checkpoint-minutes", "0.005", store=store)
        time.sleep(chance.uniform(4, 12))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills >= 3
    grid("run", str(file), store=store)
    assert scores(store) == scores(tmp_path / "straight")
    assert set(computed(Store(store), load_grid(file)).values()) == {1}


@pytest.mark.slow
def test_two_grids_on_one_store_do_nothing_twice(tmp_path: Path) -> None:
    file, store = write_grid(tmp_path / "g.toml", TWO, **{"pretrain.steps": 60}), tmp_path / "store"
    both = [start("run", str(file), store=store) for _ in range(2)]
    for process in both:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told[-2000:]
    counts = computed(Store(store), load_grid(file))
    assert len(counts) == 6
    assert set(counts.values()) == {1}


@pytest.mark.slow
def test_interrupted_by_ctrl_c_it_says_so_and_continues(tmp_path: Path) -> None:
    file, store = write_grid(tmp_path / "g.toml", TWO, **{"pretrain.steps": 4000}), tmp_path / "store"
    process = start("run", str(file), store=store)
    deadline = time.monotonic() + 120
    while not list(store.glob("encoders/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    running = grid("status", str(file), store=store)
    assert running["counts"]["running"] == 1
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told[-2000:]
    assert grid("status", str(file), store=store)["counts"]["interrupted"] == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["run", "none.toml"], 3, "none.toml: no such grid file"),
        (["run", "g.toml", "--executor", "slurm"], 2, "no executor 'slurm'"),
        (["run", "g.toml", "--slots", "2"], 2, "executor inline has no such option"),
        (["run", "g.toml", "--executor", "ray", "--slots", "-1"], 2, "slots"),
        (["plan", "g.toml", "--data", "brats"], 2, "expected NAME=DIR"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    write_grid(tmp_path / "g.toml", TWO)
    words = [str(tmp_path / word) if word.endswith(".toml") else word for word in words]
    process = start(*words, store=tmp_path / "store")
    answer, error = process.communicate(timeout=100)
    assert process.returncode == code, error
    assert told in error
    assert "Traceback" not in error
    assert json.loads(answer)["error"]["exit_code"] == code
