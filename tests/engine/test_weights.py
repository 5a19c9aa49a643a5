"""Weights on disk: what is written is read bit for bit; a file that is not what it says is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

from mae_bench.engine.layouts import read_weights
from mae_bench.engine.transfer import Weights
from mae_bench.engine.weights import has_geometry, load_weights, save_state, save_weights, write_weights
from mae_bench.errors import InputError
from mae_bench_plugins.backbones.resnet.model import ResNetEncoder
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder

HEADER = {"channels": 1, "patch": [8, 8], "grid": [2, 2]}


def encoder() -> Any:
    torch.manual_seed(0)
    return VisionTransformerEncoder(1, (16, 16), (8, 8), 48, 2, 3)


@pytest.mark.parametrize("make", [encoder, lambda: ResNetEncoder(18, 2, (32, 64), 0.0)], ids=["vit", "resnet"])
def test_an_encoder_is_read_as_it_was_written(tmp_path: Path, make: Any) -> None:
    """Buffers and whole numbers too (statistics of batch normalisation), in the precision they had."""
    module = make()
    save_weights(module, tmp_path / "e.safetensors")
    found = load_weights(tmp_path / "e.safetensors")
    assert (found.channels, found.patch, found.grid) == (module.channels, module.patch, module.grid)
    assert found.state.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(found.state[name], value)
        assert found.state[name].dtype == value.dtype


def test_a_task_model_has_no_geometry(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(nn.Linear(2, 3), path)
    assert not has_geometry(path)
    with pytest.raises(InputError, match=r"m\.safetensors: not an encoder written by mae-bench"):
        load_weights(path)


def test_the_texture_encoder_is_read_like_all_ours(tmp_path: Path) -> None:
    """LSAE's encoder has neither a patch embedding nor positions; what it learnt is one more file of ours."""
    encoders = pytest.importorskip("mae_bench_plugins.pretraining.lsae.encoder")
    module = encoders.TextureEncoder(1, (32, 32), 4, 16)
    save_weights(module, tmp_path / "texture.safetensors")
    found = read_weights(tmp_path / "texture.safetensors")
    assert found.layout == "mae-bench"
    assert found.weights.state.keys() == module.state_dict().keys()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{", "its header is damaged: Invalid JSON"),
        ("[1]", "its header is damaged"),
        (json.dumps({"channels": 1}), "its header is damaged: Field required"),
        (json.dumps({**HEADER, "channels": 0}), "its header is damaged: Input should be greater than 0"),
        (json.dumps({**HEADER, "more": 1}), "its header is damaged: Extra inputs"),
        (json.dumps({**HEADER, "patch": [8, 4]}), "patch_embed.weight is of another geometry"),
        (json.dumps({**HEADER, "grid": [2, 3]}), "pos_embed is of another geometry"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: str, words: str) -> None:
    path = tmp_path / "e.safetensors"
    save_file(encoder().state_dict(), path, {"mae_bench": header})
    with pytest.raises(InputError, match=rf"e\.safetensors: {words}"):
        load_weights(path)


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    with pytest.raises(InputError, match=r"e\.safetensors: missing"):
        load_weights(path)
    save_weights(encoder(), path)
    whole = path.read_bytes()
    for content in (b"", whole[:40], whole[:-1], whole + b"more"):
        path.write_bytes(content)
        assert not has_geometry(path)
        with pytest.raises(InputError, match=r"e\.safetensors: not a readable safetensors file"):
            load_weights(path)


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while weights are replaced leaves the old ones."""
    path = tmp_path / "e.safetensors"
    save_weights(encoder(), path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mae_bench.store.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_weights(Weights({"a": torch.zeros(3)}, 1, (), ()), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["e.safetensors"]


def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    """Slices and transposes of a larger tensor: the values of the view, and not more bytes than they take."""
    whole = torch.arange(12.0).reshape(3, 4)
    views = {"row": whole[1], "turned": whole.T}
    save_state(tmp_path / "a.safetensors", views)
    write_weights(Weights(views, 1, (), ()), tmp_path / "b.safetensors")
    for name in "ab":
        found = load_file(tmp_path / f"{name}.safetensors")
        assert all(torch.equal(found[key], value) for key, value in views.items())
    assert (tmp_path / "a.safetensors").stat().st_size <= len(save({"x": torch.zeros(64)}))
