"""`mae-bench weights` through the command line: documents, files, and what is said when something is wrong."""

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
from mae_bench.data.manifest import manifest_path, read_manifest, write_manifest
from mae_bench.engine.weights import save_weights
from mae_bench.errors import InputError, UsageError
from mae_bench.record import Identity
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from tests.files.checkpoints import fixed_table, monai_unetr, monai_vit, reference_mae, selfmedmae, timm_vit

COMMAND = [str(Path(sys.executable).parent / "mae-bench"), "weights"]


def invoke(*arguments: Any) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def document(*arguments: Any) -> Any:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(reference_mae(), tmp_path / "mae.pth")
    return tmp_path / "mae.pth"


def test_inspect(checkpoint: Path) -> None:
    found = document("inspect", checkpoint)
    net = timm_vit(img_size=32)
    own = {name: value for name, value in net.named_parameters() if not name.startswith("head.")}
    assert found == {
        "file": str(checkpoint), "layout": "facebookresearch/mae", "tensors": len(own), "channels": 3, "patch": [8, 8],
        # The table's row for the class token is added to the class token.
        "parameters": sum(value.numel() for value in own.values()) - 48,
        "grid": [4, 4], "fixed_positions": False, "width": 48, "depth": 3,
    }  # fmt: skip
    assert "facebookresearch/mae" in invoke("inspect", checkpoint).stdout


def test_inspect_says_what_must_be_stated(tmp_path: Path) -> None:
    torch.save(monai_vit("perceptron", channels=1).state_dict(), tmp_path / "monai.pth")
    found = invoke("inspect", tmp_path / "monai.pth").exception
    assert isinstance(found, InputError)
    assert "--file-channels 1" in found.hint
    stated = ["--file-channels", 1, "--file-patch", "4,4,4", "--file-grid", "4,4,4"]
    assert document("inspect", tmp_path / "monai.pth", *stated)["patch"] == [4, 4, 4]


def test_import_as_is_changes_the_layout_alone(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "out" / "ours.safetensors"
    found = document("import", checkpoint, out)
    assert found["transfer"]["loaded"] == 1.0
    there, here = document("inspect", checkpoint), document("inspect", out)
    assert here == {**there, "file": str(out), "layout": "mae-bench"}


def test_import_writes_fixed_positions_into_the_file(tmp_path: Path) -> None:
    torch.save(selfmedmae((2, 3, 4), None), tmp_path / "volume.pth")
    failed = invoke("import", tmp_path / "volume.pth", tmp_path / "x.safetensors")
    assert isinstance(failed.exception, InputError)
    assert not (tmp_path / "x.safetensors").exists()
    document("import", tmp_path / "volume.pth", tmp_path / "x.safetensors", "--file-grid", "2,3,4")
    torch.testing.assert_close(load_file(tmp_path / "x.safetensors")["pos_embed"], fixed_table((2, 3, 4), 48)[0])


def test_import_fits_and_reports(tmp_path: Path) -> None:
    """A timm ViT-Ti for 64 pixels becomes an encoder of 1-channel volumes; what is not said stays as in the file."""
    net = timm.create_model("vit_tiny_patch16_224", img_size=64)
    torch.save(net.state_dict(), tmp_path / "tiny.pth")
    out, tiny = tmp_path / "volume.safetensors", ["--set", "backbone.size=tiny"]
    fitted = ["--roi", "32,32,32", "--channels", 1, *tiny, "--set", "backbone.patch=[8]"]
    found = document("import", tmp_path / "tiny.pth", out, *fitted)
    assert found["transfer"]["random"] == 0
    assert found["transfer"]["source"] == "tiny.pth (timm ViT)"
    assert any("inflated: patch_embed.weight" in line for line in found["transfer"]["details"])
    again = document("inspect", out)
    assert (again["layout"], again["patch"], again["channels"]) == ("mae-bench", [8, 8, 8], 1)
    document("import", tmp_path / "tiny.pth", out, *tiny, "--channels", 1)
    again = document("inspect", out)
    assert (again["patch"], again["grid"], again["channels"]) == ([16, 16], [4, 4], 1)
    shown = invoke("import", tmp_path / "tiny.pth", out, *tiny, "--roi", "96,64")
    assert "resized: pos_embed 16x192 to 24x192" in shown.stdout


def test_import_refuses_too_little_unless_waived(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "x.safetensors"
    small = ["--roi", "32,32", "--set", "backbone.size=tiny"]
    failed = invoke("import", checkpoint, out, *small).exception
    assert isinstance(failed, InputError)
    assert "--waive" in failed.hint
    assert not out.exists()
    assert document("import", checkpoint, out, *small, "--waive")["transfer"]["waived"]


def test_export_and_back(tmp_path: Path, checkpoint: Path) -> None:
    for name in ("timm.safetensors", "timm.pth"):
        out = tmp_path / name
        found = document("export", checkpoint, out, "--to", "timm")
        state = load_file(out) if out.suffix == ".safetensors" else torch.load(out, weights_only=True)
        assert (found["tensors"], found["roi"], found["channels"]) == (len(state), [32, 32], 3)
        net = timm_vit(img_size=32)
        net.reset_classifier(0)
        net.load_state_dict(state, strict=True)
    ours = tmp_path / "ours.safetensors"
    document("export", checkpoint, ours, "--to", "ours")
    document("export", ours, tmp_path / "again.safetensors", "--to", "timm")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "timm.safetensors").read_bytes()


def test_export_of_an_encoder_of_the_store(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VisionTransformerEncoder(4, (32, 32, 32), (16, 16, 16), 48, 12, 3)
    save_weights(encoder, tmp_path / "store" / "encoders" / "abc" / "encoder.safetensors")
    for projection in ("conv", "perceptron"):
        out = tmp_path / f"{projection}.safetensors"
        chosen = ["--to", "monai", "--projection", projection, "--store", tmp_path / "store"]
        document("export", "abc", out, *chosen)
        loaded = monai_unetr(4, 32, projection).load_state_dict(load_file(out), strict=False)
        assert not loaded.unexpected_keys


def test_what_weights_were_made_from_goes_with_them(tmp_path: Path, checkpoint: Path) -> None:
    """Through import and export; and what an older file of that name had is not said of the new one."""
    cases = (Identity(subject="a patient", sha256="ab" * 32),)
    write_manifest(checkpoint, cases)
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    document("import", checkpoint, ours)
    document("export", ours, theirs, "--to", "timm")
    assert read_manifest(ours) == read_manifest(theirs) == cases
    manifest_path(checkpoint).unlink()
    document("import", checkpoint, ours)
    document("export", ours, theirs, "--to", "timm")
    assert read_manifest(ours) is read_manifest(theirs) is None


def test_what_is_wrong_is_said(tmp_path: Path, checkpoint: Path) -> None:
    for arguments, error, words in (
        (["inspect", tmp_path / "none.pth"], InputError, "none.pth: missing"),
        (["export", tmp_path / "none.pth", tmp_path / "x.pth", "--to", "timm"], InputError, "none.pth: missing"),
        (["export", checkpoint, tmp_path / "x.bin", "--to", "timm"], UsageError, r"must end in \.safetensors or \.pth"),
        (["export", checkpoint, tmp_path / "x.pth", "--to", "ours"], UsageError, r"must end in \.safetensors$"),
        (["export", "abc", tmp_path / "x.pth", "--to", "timm"], UsageError, "neither a file nor the key"),
        (
            ["export", checkpoint, tmp_path / "x.pth", "--to", "timm", "--projection", "conv"],
            UsageError,
            "--projection is MONAI's",
        ),
        (["import", checkpoint, tmp_path / "x.pth", "--roi", "a,b"], UsageError, "--roi a,b: expected whole numbers"),
        (["import", checkpoint, tmp_path / "x.pth", "--roi", "20,20"], UsageError, "not a whole number of patches"),
        (["inspect", checkpoint, "--file-grid", ""], UsageError, "--file-grid : expected whole numbers"),
        (["inspect", checkpoint, "--file-channels", 1], InputError, "its channels: 3, not 1 as stated"),
        (["import", checkpoint, tmp_path / "x.pth", "--backbone", "vot"], UsageError, "vot"),
    ):
        found = invoke(*arguments).exception
        assert isinstance(found, error), (arguments, found)
        with pytest.raises(error, match=words):
            raise found
    assert [path.name for path in tmp_path.iterdir()] == ["mae.pth"]


def test_exit_codes(tmp_path: Path) -> None:
    """As the shell sees them: 3 with the file's name for the file, 2 for the command; --json answers in JSON."""
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights at all")
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    for arguments, code in ((["inspect", bad, "--json"], 3), (["export", bad, "x.pth", "--to", "keras", "--json"], 2)):
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        told = json.loads(done.stdout)["error"]
        assert told["exit_code"] == code
        assert ("bad.pth: not a weights file" if code == 3 else "keras") in told["message"]
