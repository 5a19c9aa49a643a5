"""The whole path through the command line, on small data in the real format: records, exit codes, kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mae_bench.record import ResultRecord

COMMAND = [str(Path(sys.executable).parent / "mae-bench")]
SMALL = ["--recipe", "smoke", "--set", "dataset.subjects=6"]
BRATS = ["--dataset", "brats", "--demo", *SMALL, "--set", "dataset.demo_spacing=6"]
MNI = ["--dataset", "mni152", *SMALL, "--set", "dataset.spacing=6"]


def mae_bench(*arguments, **options):
    """Run the installed command."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **options.pop("env", {})}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, **options
    )


def run_json(*arguments):
    """Run a command that must succeed; its one JSON document."""
    done = mae_bench(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def record(store):
    return run_json("run", *BRATS, "--pretrain", "mae", "--ratio", 0.75, "--store", store)


def test_record_is_what_the_contract_says(record, store):
    assert ResultRecord.model_validate(record).to_json() == record
    assert record["schema"] == 1
    assert record["status"] == "ok"
    assert record["data"]["kind"] == "demo"
    assert record["spec"]["pretrain"]["options"]["ratio"] == 0.75
    assert record["main_metric"] == "dice"
    assert record["transfer"]["loaded"] == 1.0
    assert set(record["plugins"]) == {"brats", "vit", "mae", "unetr"}
    assert record["cost"]["samples"] == 8
    split = record["data"]["split"]
    assert not set(split["test"]) & {*split["train"], *split["val"]}
    for metric in record["metrics"].values():
        assert metric["low"] <= metric["value"] <= metric["high"]


def test_metrics_follow_from_the_cases(record, store):
    cases = pd.read_csv(store / "records" / record["cases"]["file"])
    assert sorted(cases["case"]) == sorted(record["data"]["split"]["test"])
    for name, metric in record["metrics"].items():
        assert metric["value"] == pytest.approx(cases[name].mean())


def test_cases_follow_from_the_prediction_files(record, store):
    """Read back what was written, against the label files, with nibabel and numpy alone."""
    (demo,) = store.glob("demo/*/files")
    cases = pd.read_csv(store / "records" / record["cases"]["file"], index_col="case")
    for case, scores in cases.iterrows():
        truth = nib.load(demo / "labelsTr" / f"{case}.nii.gz")
        guess = nib.load(store / "models" / record["key"] / "predictions" / f"{case}.nii.gz")
        assert np.allclose(truth.affine, guess.affine)
        a, b = np.asarray(truth.dataobj) > 0, np.asarray(guess.dataobj) > 0
        dice = 2 * (a & b).sum() / (a.sum() + b.sum())
        assert scores["dice/WT"] == pytest.approx(dice)


def test_pictures_are_pictures(record, store):
    for path in (*store.glob("encoders/*/reconstruction.png"), *store.glob("models/*/overlays.png")):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 10
    assert len(list(store.glob("*/*/*.png"))) == 2


def test_a_finished_run_is_served(record, store):
    before = (store / "records" / f"{record['key']}.json").stat().st_mtime_ns
    assert run_json("run", *BRATS, "--pretrain", "mae", "--store", store) == record
    assert (store / "records" / f"{record['key']}.json").stat().st_mtime_ns == before


def test_the_encoder_is_shared_by_heads_labels_and_seeds(record, store):
    changes = ["--head", "linear", "--seed", 1, "--labels", 0.5]
    other = run_json("run", *BRATS, "--pretrain", "mae", *changes, "--store", store)
    assert other["key"] != record["key"]
    assert len(list(store.glob("encoders/*/encoder.safetensors"))) == 1
    assert len(other["data"]["labelled"]) < len(record["data"]["labelled"])


def test_results_and_show(record, store):
    mae_bench("run", *BRATS, "--pretrain", "scratch", "--store", store)
    listed = run_json("results", "list", "--where", "head=unetr", "--store", store)
    assert {row["pretrain"] for row in listed} == {"mae", "scratch"}
    sides = ["pretrain=mae", "pretrain=scratch", "--where", "head=unetr"]
    found = run_json("results", "compare", *sides, "--store", store)
    assert found["cases"] == len(record["data"]["split"]["test"])
    assert found["mean_a"] == pytest.approx(record["metrics"]["dice"]["value"])
    shown = run_json("show", record["key"][:8], "--store", store)
    assert all(Path(path).exists() for path in shown["files"].values())
    assert "dice/WT" in mae_bench("show", record["key"][:8], "--no-open", "--store", store).stdout


def test_same_specification_same_bits(record, tmp_path):
    again = run_json("run", *BRATS, "--pretrain", "mae", "--store", tmp_path)
    assert again["metrics"] == record["metrics"]
    assert again["cases"] == record["cases"]


def test_classification_and_the_paper_protocol(store):
    found = run_json("run", *MNI, "--pretrain", "mae", "--set", "dataset.target=atrophy", "--store", store)
    assert found["spec"]["head"]["name"] == "classifier"
    assert found["main_metric"] == "auc"
    paper = run_json("run", *BRATS, "--pretrain", "mae", "--protocol", "paper", "--store", store)
    assert paper["data"]["split"]["val"] == paper["data"]["split"]["test"]
    assert paper["metrics"]["hd95"]["unit"] == "voxel"
    assert [region for region in paper["metrics"] if region.startswith("dice/")] == ["dice/ET", "dice/TC", "dice/WT"]


def test_divergence_is_recorded_and_never_served(tmp_path):
    command = ["run", *BRATS, "--pretrain", "mae", "--set", "pretrain.lr=1e30", "--set", "pretrain.steps=30"]
    done = mae_bench(*command, "--store", tmp_path, "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"]["exit_code"] == 4
    assert "Traceback" not in done.stderr
    (failed,) = run_json("results", "list", "--store", tmp_path)
    assert failed["status"] == "failed"
    assert mae_bench(*command, "--store", tmp_path).returncode == 4


LONG = [
    *BRATS, "--pretrain", "mae", "--set", "pretrain.steps=120", "--set", "finetune.steps=60",
    "--checkpoint-minutes", "0.005",
]  # fmt: skip


def test_a_signal_leaves_a_checkpoint_and_130(tmp_path):
    process = subprocess.Popen([*COMMAND, "run", *LONG, "--store", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("encoders/*/checkpoint.pt")), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "same command continues" in errors
    assert list(tmp_path.glob("encoders/*/checkpoint.pt"))


@pytest.mark.slow
def test_killed_ten_times_equals_uninterrupted(tmp_path):
    """Kill -9 at random moments of pre-training and fine-tuning: every bit of every metric is the same."""
    straight = run_json("run", *LONG, "--store", tmp_path / "straight")
    chance, kills, stages = random.Random(0), 0, set()
    cut = tmp_path / "cut"
    while kills < 10:
        process = subprocess.Popen([*COMMAND, "run", *LONG, "--store", str(cut)], stderr=subprocess.DEVNULL)
        # Half of the kills in each stage: progress is kept, so the run would else be over too soon.
        kind = "encoders" if kills < 5 else "models"
        wait_for(lambda kind=kind: list(cut.glob(f"{kind}/*/checkpoint.pt")), process)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.wait()
        kills += 1
        stages |= {path.parent.parent.name for path in cut.glob("*/*/checkpoint.pt")}
        if list(cut.glob("records/*.json")):  # it was faster: begin again
            for path in cut.glob("models/*/*"):
                if path.is_file():
                    path.unlink()
            for path in cut.glob("records/*"):
                path.unlink()
    again = run_json("run", *LONG, "--store", cut)
    assert again["metrics"] == straight["metrics"]
    assert again["cases"]["sha256"] == straight["cases"]["sha256"]
    assert again["key"] == straight["key"]
    assert stages == {"encoders", "models"}


def wait_for(condition, process):
    for _ in range(6000):
        if condition():
            return
        if process.poll() is not None:
            raise AssertionError(f"ended early with {process.returncode}")
        time.sleep(0.01)
    raise AssertionError("nothing happened in a minute")


@pytest.mark.slow
def test_two_processes_share_a_run(tmp_path, record):
    """Two gloo processes through accelerate: one record, the loss of one process to rounding."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        "-m", "mae_bench", "run", *BRATS, "--pretrain", "mae", "--store", str(tmp_path), "--json",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["key"] == record["key"]
    assert found["status"] == "ok"
    assert len(list(tmp_path.glob("records/*.json"))) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_explained(small_disk):
    done = mae_bench("run", *BRATS, "--pretrain", "mae", "--store", small_disk / "store")
    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert "--store" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(small_disk.rglob("*.tmp"))
    assert not list(small_disk.rglob("records/*"))


def test_a_read_only_store_is_explained(small_disk):
    (small_disk / "store").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = mae_bench("run", *BRATS, "--pretrain", "mae", "--store", small_disk / "store")
    assert done.returncode == 3
    assert "Read-only" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tracker_gets_the_losses(tmp_path):
    pytest.importorskip("tensorboard")
    done = mae_bench("run", *BRATS, "--pretrain", "mae", "--tracker", "tensorboard", "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("events.out.tfevents*"))
