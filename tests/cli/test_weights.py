"""`mae-bench weights` and the pre-trainings that start from a file, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from mae_bench.cli import app
from mae_bench.errors import InputError, UsageError
from mae_bench_plugins.pretraining.imagenet import ImageNet, ImageNetOptions
from mae_bench_plugins.pretraining.weights import WeightsFile, WeightsOptions
from tests.files.checkpoints import reference_mae, timm_vit

COMMAND = [str(Path(sys.executable).parent / "mae-bench")]
SMALL = ["--recipe", "smoke", "--set", "dataset.subjects=6", "--set", "dataset.spacing=6", "--dataset", "mni152"]


def invoke(*arguments: Any) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def document(*arguments: Any) -> Any:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def run_json(*arguments: Any) -> Any:
    """Run a cell with the installed command."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*COMMAND, "run", *map(str, arguments), "--json"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(reference_mae(), tmp_path / "mae.pth")
    return tmp_path / "mae.pth"


def test_inspect(checkpoint: Path) -> None:
    found = document("weights", "inspect", checkpoint)
    assert {name: found[name] for name in ("layout", "channels", "patch", "grid", "dim", "depth")} == {
        "layout": "facebookresearch/mae", "channels": 3, "patch": [8, 8], "grid": [4, 4], "dim": 48, "depth": 3,
    }  # fmt: skip


def test_import_fits_and_reports(tmp_path: Path) -> None:
    """A timm ViT-Ti for 64 pixels becomes an encoder of 1-channel volumes."""
    net = timm.create_model("vit_tiny_patch16_224", img_size=64)
    torch.save(net.state_dict(), tmp_path / "tiny.pth")
    out = tmp_path / "volume.safetensors"
    fitted = ["--roi", "32,32,32", "--image-channels", 1, "--set", "backbone.size=tiny", "--set", "backbone.patch=[8]"]
    found = document("weights", "import", tmp_path / "tiny.pth", out, *fitted)
    assert found["transfer"]["random"] == 0
    assert any("inflated: patch_embed.weight" in line for line in found["transfer"]["details"])
    again = document("weights", "inspect", out)
    assert (again["layout"], again["patch"], again["channels"]) == ("mae-bench", [8, 8, 8], 1)


def test_export_and_back(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "timm.safetensors"
    assert document("weights", "export", checkpoint, out, "--to", "timm")["tensors"] == len(load_file(out))
    net = timm_vit(img_size=32)
    net.reset_classifier(0)
    net.load_state_dict(load_file(out), strict=True)


def test_what_is_wrong_is_said(tmp_path: Path, checkpoint: Path) -> None:
    for arguments, error, words in (
        (["inspect", tmp_path / "none.pth"], InputError, "none.pth: missing"),
        (["export", checkpoint, tmp_path / "x.pth", "--to", "keras"], UsageError, "there are timm, monai"),
        (["export", checkpoint, tmp_path / "x.bin", "--to", "timm"], UsageError, r"must end in \.safetensors or \.pth"),
        (["export", "abc", tmp_path / "x.pth", "--to", "timm"], UsageError, "neither a file nor the key"),
        (["import", checkpoint, tmp_path / "x.pth", "--roi", "a,b"], UsageError, "--roi a,b: expected whole numbers"),
        (["import", checkpoint, tmp_path / "x.pth"], InputError, "only 0.0% of the encoder's parameters"),
    ):
        found = invoke("weights", *arguments).exception
        assert isinstance(found, error), found
        with pytest.raises(error, match=words):
            raise found
    assert [path.name for path in tmp_path.iterdir()] == ["mae.pth"]


def test_imagenet_asks_before_it_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="nothing is fetched unasked") as found:
        ImageNet().source(ImageNetOptions())
    assert "--download" in str(found.value)
    assert "--file PATH" in str(found.value)
    with pytest.raises(InputError, match=r"none\.pth: no such weights file"):
        ImageNet().source(ImageNetOptions(file=tmp_path / "none.pth"))
    with pytest.raises(UsageError, match="--file PATH"):
        WeightsFile().source(WeightsOptions())


def test_weights_of_another_run_are_fitted_to_another_roi_patch_and_number_of_channels(tmp_path: Path) -> None:
    """The record says what became of them, names the file and not its folder, and its key depends on the contents."""
    first = run_json(*SMALL, "--pretrain", "mae", "--store", tmp_path / "store")
    (file,) = (tmp_path / "store" / "encoders").glob("*/encoder.safetensors")
    changed = ["--set", "recipe.roi=[16,32,32]", "--set", "backbone.patch=[4]"]
    brats = ["--recipe", "smoke", "--dataset", "brats", "--demo", "--set", "dataset.subjects=6"]
    brats += ["--set", "dataset.demo_spacing=6"]
    moved = tmp_path / "elsewhere" / file.name
    moved.parent.mkdir()
    moved.write_bytes(file.read_bytes())
    same = run_json(*SMALL, "--pretrain", "weights", "--file", moved, "--store", tmp_path / "store")
    assert same["transfer"]["loaded"] == 1.0
    assert same["transfer"]["source"] == "weights"
    assert same["spec"]["pretrain"]["options"]["file"] == "encoder.safetensors"
    assert len(same["spec"]["start"]) == 64
    assert same["metrics"] == first["metrics"]  # the same encoder, fine-tuned from the same seed
    other = run_json(*brats, *changed, "--pretrain", "weights", "--file", file, "--store", tmp_path / "store")
    fates = {line.split(":")[0] for line in other["transfer"]["details"]}
    assert fates == {"resized", "inflated"}
    assert other["transfer"]["random"] == 0
