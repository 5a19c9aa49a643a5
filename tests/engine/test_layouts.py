"""Foreign weights give the tokens that they give at home; what cannot be trusted or understood is refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mae_bench.engine.export import export
from mae_bench.engine.layouts import Stated, read_weights
from mae_bench.engine.transfer import Weights, load_encoder
from mae_bench.engine.weights import save_weights, write_weights
from mae_bench.errors import InputError
from mae_bench.tokens import patchify, sincos_positions
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from tests.files import checkpoints
from tests.files.checkpoints import DEPTH, DIM, HEADS, monai_unetr, monai_vit, timm_vit


def saved(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def encoder_of(weights: Weights) -> Any:
    """An encoder of the weights' own geometry, random otherwise, with all of them loaded."""
    torch.manual_seed(9)
    grid = weights.grid or (4, 4, 4)
    roi = tuple(a * b for a, b in zip(grid, weights.patch, strict=True))
    encoder = VisionTransformerEncoder(weights.channels, roi, weights.patch, DIM, DEPTH, HEADS)
    report = load_encoder(encoder, weights, "file")
    assert (report.loaded, report.random) == (1.0, 0.0)
    return encoder.eval()


def tokens_of(encoder: Any, images: Tensor) -> Tensor:
    """Class token and patch tokens, normalised: (B, 1 + L, dim)."""
    tokens: Tensor = encoder.encode(encoder.embed(patchify(images, encoder.patch)))
    return tokens


@torch.no_grad()
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.encoder."])
def test_timm(tmp_path: Path, suffix: str, prefix: str) -> None:
    """An image that is not square needs its grid stated; 32 x 24 pixels are 4 x 3 tokens."""
    net = timm_vit()
    state = {prefix + name: value for name, value in net.state_dict().items()}
    path = saved(tmp_path / f"vit{suffix}", state)
    found = read_weights(path, Stated(grid=(4, 3)))
    assert found.layout == ("timm ViT" if "encoder" not in prefix else "SelfMedMAE")
    images = torch.randn(2, 3, 32, 24)
    torch.testing.assert_close(
        tokens_of(encoder_of(found.weights), images), net.forward_features(images), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(InputError, match="13 rows, which is no square"):
        read_weights(path)


@torch.no_grad()
def test_timm_without_biases_and_class_token(tmp_path: Path) -> None:
    net = timm_vit(img_size=32, qkv_bias=False, class_token=False, global_pool="avg")
    found = read_weights(saved(tmp_path / "vit.pth", {"state_dict": net.state_dict()}))
    assert found.weights.grid == (4, 4)
    encoder = VisionTransformerEncoder(3, (32, 32), (8, 8), DIM, DEPTH, HEADS).eval()
    report = load_encoder(encoder, found.weights, "file", waive=True)
    assert [line for line in report.details if "random" in line] == [f"random: cls_token 1x1x{DIM}"]
    assert not encoder.blocks[0].attn.qkv.bias.any()


@torch.no_grad()
def test_reference_mae(tmp_path: Path) -> None:
    content = checkpoints.reference_mae()
    found = read_weights(saved(tmp_path / "mae.pth", content))
    assert found.layout == "facebookresearch/mae"
    net = timm_vit(img_size=32)
    net.load_state_dict(content["model"], strict=False)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        tokens_of(encoder_of(found.weights), images), net.forward_features(images), rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_selfmedmae(tmp_path: Path) -> None:
    """Volumes: its positions are the fixed table, which its checkpoints need not hold; tokens as timm's blocks give."""
    content = checkpoints.selfmedmae()
    found = read_weights(saved(tmp_path / "volume.pth.tar", content))
    assert found.layout == "SelfMedMAE"
    assert found.weights.fixed_positions
    assert (found.weights.channels, found.weights.patch) == (2, (4, 4, 4))
    encoder = encoder_of(found.weights)
    state = {name.removeprefix("module.encoder."): value for name, value in content["state_dict"].items()}
    images = torch.randn(2, 2, 16, 16, 16)
    embedded = torch.nn.functional.conv3d(
        images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4
    )
    x = embedded.flatten(2).mT + sincos_positions((4, 4, 4), DIM)
    x = torch.cat([state["cls_token"].expand(2, -1, -1), x], 1)
    net = timm_vit()
    net.load_state_dict({name: value for name, value in state.items() if "blocks" in name}, strict=False)
    for block in net.blocks:
        x = block(x)
    expected = torch.nn.functional.layer_norm(x, (DIM,), state["norm.weight"], state["norm.bias"], eps=1e-6)
    torch.testing.assert_close(tokens_of(encoder, images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["vit", "mae", "mae as saved"])
def test_hugging_face(tmp_path: Path, kind: str) -> None:
    """Both sets of names: in memory, and as `save_pretrained` writes them."""
    net = checkpoints.hugging_face_vit() if kind == "vit" else checkpoints.hugging_face_mae()
    if kind == "mae as saved":
        net.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = saved(tmp_path / "net.pth", net.state_dict())
    found = read_weights(path)
    assert found.layout == "transformers ViT"
    images = torch.randn(2, 3, 32, 32)
    if kind == "vit":
        expected = net(images).last_hidden_state
    else:  # nothing is masked, but the order is random: the noise puts it right
        noise = torch.arange(16.0).expand(2, 16)
        expected = net.vit(images, noise=noise).last_hidden_state
    torch.testing.assert_close(tokens_of(encoder_of(found.weights), images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("projection", ["conv", "perceptron"])
def test_monai(tmp_path: Path, projection: str) -> None:
    net = monai_vit(projection)
    path = saved(tmp_path / "vit.pt", net.state_dict())
    stated = Stated(channels=2) if projection == "perceptron" else Stated()
    found = read_weights(path, stated)
    assert found.layout == "MONAI ViT"
    assert (found.weights.patch, found.weights.grid) == ((4, 4, 4), (4, 4, 4))
    images = torch.randn(2, 2, 16, 16, 16)
    x = net.patch_embedding(images)
    x = torch.cat([net.cls_token.expand(2, -1, -1), x], dim=1)
    for block in net.blocks:
        x = block(x)
    # MONAI's norms add 1e-5 where ours add 1e-6.
    torch.testing.assert_close(tokens_of(encoder_of(found.weights), images), net.norm(x), rtol=1e-3, atol=1e-3)
    if projection == "perceptron":
        with pytest.raises(InputError, match="--channels"):
            read_weights(path)


def test_monais_unetr_tells_its_channels(tmp_path: Path) -> None:
    found = read_weights(saved(tmp_path / "unetr.pt", monai_unetr(4, 32).state_dict()))
    assert (found.weights.channels, found.weights.patch, found.weights.grid) == (4, (16,) * 3, (2,) * 3)


@torch.no_grad()
def test_what_is_exported_to_timm_gives_the_same_tokens_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder: Any = VisionTransformerEncoder(3, (64, 64), (16, 16), 192, 12, 3).eval()
    checkpoints.uneven(encoder)
    save_weights(encoder, tmp_path / "ours.safetensors")
    weights = read_weights(tmp_path / "ours.safetensors").weights
    export(weights, "timm", tmp_path / "timm.safetensors")
    net: Any = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    net.load_state_dict(load_file(tmp_path / "timm.safetensors"), strict=True)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net.forward_features(images), tokens_of(encoder, images), rtol=1e-4, atol=1e-4)
    back = read_weights(tmp_path / "timm.safetensors").weights
    assert all(torch.equal(value, back.state[name]) for name, value in weights.state.items())


@torch.no_grad()
def test_what_is_exported_to_monai_is_the_encoder_of_its_unetr(tmp_path: Path) -> None:
    """All of `vit.` is there, and its blocks give the same hidden states without our class token."""
    torch.manual_seed(0)
    encoder: Any = VisionTransformerEncoder(4, (32, 32, 32), (16, 16, 16), DIM, 12, HEADS).eval()
    checkpoints.uneven(encoder)
    save_weights(encoder, tmp_path / "ours.safetensors")
    export(read_weights(tmp_path / "ours.safetensors").weights, "monai", tmp_path / "monai.pth")
    net = monai_unetr(4, 32)
    state = torch.load(tmp_path / "monai.pth", weights_only=True)
    loaded = net.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all("norm_cross_attn" in name for name in loaded.missing_keys if name.startswith("vit."))
    images = torch.randn(2, 4, 32, 32, 32)
    x = encoder.embed(patchify(images, encoder.patch))
    for block in encoder.blocks:
        x = block(x)
    torch.testing.assert_close(net.vit(images)[0], encoder.norm(x), rtol=1e-3, atol=1e-3)


class Mine:
    """What a malicious checkpoint holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1)}, "more": Mine(tmp_path / "ran")}, tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Mine(tmp_path / "ran")))
    for name in ("bad.pth", "plain.pth"):
        with pytest.raises(InputError, match=f"{name}: "):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weights_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    with pytest.raises(InputError, match="missing"):
        read_weights(path)
    for content in (b"", b"no weights at all", saved(tmp_path / f"x{suffix}", {"a": torch.zeros(9)}).read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"file{suffix}"):
            read_weights(path)
    saved(path, {"some.weight": torch.zeros(3)})
    with pytest.raises(InputError, match="unknown layout"):
        read_weights(path)


def test_shapes_that_do_not_fit_their_layout_are_named(tmp_path: Path) -> None:
    state = timm_vit(img_size=32).state_dict()
    del state["norm.weight"]
    with pytest.raises(InputError, match="looks like timm ViT"):
        read_weights(saved(tmp_path / "vit.pth", state))


def test_our_own_file_needs_no_guess(tmp_path: Path) -> None:
    encoder = VisionTransformerEncoder(2, (16, 24, 8), (8, 8, 4), DIM, DEPTH, HEADS)
    save_weights(encoder, tmp_path / "e.safetensors")
    found = read_weights(tmp_path / "e.safetensors")
    assert (found.layout, found.weights.patch, found.weights.grid) == ("mae-bench", (8, 8, 4), (2, 3, 2))
    write_weights(found.weights, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "e.safetensors").read_bytes()
