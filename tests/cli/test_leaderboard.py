"""`mae-bench leaderboard` from a store to a site, with the exit codes of the contract."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mae_bench.record import ResultRecord
from mae_bench.store import Store
from tests.cli.test_light import call, document, mae_bench, no_traceback
from tests.files.records import csv_of, make_run

ADD = ["leaderboard", "add", "store", "--json"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two finished runs and a failed one, with curves and pictures."""
    store = Store(tmp_path / "store")
    for seed in (0, 1):
        record, table = make_run({"seed": seed}, kind="demo")
        store.write_record(record)
        store.cases_path(record.key).write_bytes(csv_of(table))
    encoder, model = store.folder("encoders", record.spec.pretrain_key()), store.folder("models", record.key)
    for folder in (encoder, model):
        folder.mkdir(parents=True)
        rows = "".join(f"{step},{1 / step!r}\n" for step in range(1, 1001))
        (folder / "losses.csv").write_text(f"step,loss\n{rows}")
    store.finish("models", record.key, {"selection": [[500, 0.4], [1000, 0.5]]})
    (model / "site_losses.csv").write_text("round,site,step,loss\n1,0,1,0.5\n")
    Image.new("RGB", (3000, 1500)).save(model / "overlays.png")
    Image.new("RGB", (300, 200)).save(encoder / "reconstruction.png")
    failed, _ = make_run({"seed": 2}, kind="demo")
    store.write_record(failed.model_copy(update={"status": "failed", "metrics": {}, "cases": None, "main_metric": ""}))
    return store


def test_from_a_store_to_a_site(tmp_path: Path, store: Store) -> None:
    added = document(mae_bench(tmp_path, *ADD))["records"]
    assert len(added) == 2
    folder = tmp_path / "leaderboards" / "brats-clean-v1-demo" / "records"
    assert {Path(path).parent for path in added} == {Path("leaderboards") / "brats-clean-v1-demo" / "records"}
    checked = document(mae_bench(tmp_path, "leaderboard", "check", "--json"))
    assert checked["records"] == 2
    built = document(mae_bench(tmp_path, "leaderboard", "build", "--out", "site", "--json"))
    assert (built["boards"], built["records"]) == (["brats-clean-v1-demo"], 2)
    assert (tmp_path / built["index"]).is_file()
    (key,) = (path.name.partition(".")[0] for path in folder.glob("*.overlays.png"))
    with Image.open(folder / f"{key}.overlays.png") as picture:
        assert picture.size == (1000, 500)
    curves = (folder / f"{key}.losses.csv").read_text().splitlines()
    assert len(curves) <= 401
    assert "finetune,1000,0.001" in curves
    assert "selection,1000,0.5" in curves
    assert (folder / f"{key}.site_losses.csv").is_file()
    assert (folder / f"{key}.reconstruction.png").is_file()


def test_adding_twice_changes_nothing(tmp_path: Path, store: Store) -> None:
    mae_bench(tmp_path, *ADD)
    before = {path: path.read_bytes() for path in (tmp_path / "leaderboards").rglob("*.*") if path.is_file()}
    mae_bench(tmp_path, *ADD)
    assert before == {path: path.read_bytes() for path in (tmp_path / "leaderboards").rglob("*.*") if path.is_file()}


def test_demo_records_are_turned_away_from_a_real_board(tmp_path: Path, store: Store) -> None:
    mae_bench(tmp_path, *ADD, "--board", "brats")
    answer = mae_bench(tmp_path, "leaderboard", "check", "--json")
    error = document(answer)["error"]
    assert (answer.returncode, error["exit_code"], len(error["problems"])) == (3, 3, 2)
    assert all("demo records never enter a real board" in problem for problem in error["problems"])
    answer = mae_bench(tmp_path, "leaderboard", "build", "--out", "site", "--json")
    assert answer.returncode == 3
    assert not (tmp_path / "site").exists()
    no_traceback(answer)


def test_every_fault_of_every_file_is_listed(tmp_path: Path, store: Store) -> None:
    paths = [tmp_path / path for path in document(mae_bench(tmp_path, *ADD))["records"]]
    first: dict[str, Any] = json.loads(paths[0].read_text())
    first["metrics"]["dice"]["value"] = 0.99
    paths[0].write_text(json.dumps(first))
    shutil.copyfile(paths[1].with_suffix(".cases.csv"), paths[1].with_suffix(".notes.csv"))
    paths[1].with_suffix(".cases.csv").write_text("case,dice\n")
    answer = mae_bench(tmp_path, "leaderboard", "check")
    assert (answer.returncode, answer.stdout) == (3, "")
    for words in (f"{paths[0].name}: metrics.dice: 0.99", f"{paths[1].stem}.notes.csv: no file of a record"):
        assert words in answer.stderr.replace("\n", "")
    no_traceback(answer)


@pytest.mark.parametrize(
    "arguments",
    [
        ["leaderboard", "add", "nothing"],
        ["leaderboard", "add", "store", "--board", "../elsewhere"],
        ["leaderboard", "check", "nowhere"],
        ["leaderboard", "build", "nowhere"],
        ["leaderboard", "rank"],
    ],
    ids=" ".join,
)
def test_what_does_not_exist_is_a_usage_error(tmp_path: Path, store: Store, arguments: list[str]) -> None:
    answer = mae_bench(tmp_path, *arguments)
    assert answer.returncode == 2, answer.stderr
    no_traceback(answer)


def test_help_is_light(tmp_path: Path) -> None:
    """Neither what trains nor what draws is imported to explain the commands."""
    probe = (
        "import sys; sys.argv[0] = 'mae-bench'\nfrom mae_bench.cli import main\ntry:\n    main()\nfinally:\n"
        "    print('imported:', *[name for name in ('torch', 'pandas', 'plotly', 'jinja2', 'PIL', 'scipy') "
        "if name in sys.modules], file=sys.stderr)"
    )
    answer = call([sys.executable, "-c", probe, "leaderboard", "build", "--help"], tmp_path)
    assert answer.stderr.splitlines() == ["imported:"]
    assert "--out" in answer.stdout


def test_a_record_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    """Records that were written before identities were recorded."""
    document = make_run()[0].to_json()
    del document["data"]["identities"], document["data"]["pretrained_on"]
    record = ResultRecord.model_validate(document)
    assert (record.data.identities, record.data.pretrained_on) == ({}, None)
