"""Foreign weights give the tokens that they give at home; what cannot be trusted or understood is refused."""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from mae_bench.engine.layouts import read_weights
from mae_bench.engine.layouts.monai import to_monai
from mae_bench.engine.layouts.names import Stated
from mae_bench.engine.layouts.vit import to_timm, with_positions
from mae_bench.engine.transfer import Weights, load_encoder
from mae_bench.engine.weights import save_state, save_weights, write_weights
from mae_bench.errors import InputError
from mae_bench.tokens import patchify
from mae_bench_plugins.backbones.densenet.model import DenseNetEncoder
from mae_bench_plugins.backbones.resnet.model import ResNetEncoder
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from tests.files import checkpoints
from tests.files.checkpoints import DEPTH, DIM, HEADS, fixed_table, monai_unetr, monai_vit, timm_vit, uneven


def saved(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def encoder_of(weights: Weights, grid: tuple[int, ...] = ()) -> Any:
    """An encoder of the weights' own geometry, random otherwise, with all of them loaded."""
    torch.manual_seed(9)
    roi = tuple(a * b for a, b in zip(grid or weights.grid, weights.patch, strict=True))
    encoder = VisionTransformerEncoder(weights.channels, roi, weights.patch, DIM, DEPTH, HEADS)
    report = load_encoder(encoder, weights, "file")
    assert (report.loaded, report.random, report.details) == (1.0, 0.0, ())
    return encoder.eval()


def tokens_of(encoder: Any, images: Tensor) -> Tensor:
    """Class token and patch tokens, normalised: (B, 1 + L, dim)."""
    tokens: Tensor = encoder.encode(encoder.embed(patchify(images, encoder.patch)))
    return tokens


def agree(weights: Weights, images: Tensor, expected: Tensor, grid: tuple[int, ...] = ()) -> None:
    torch.testing.assert_close(tokens_of(encoder_of(weights, grid), images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.encoder."])
def test_timm(tmp_path: Path, suffix: str, prefix: str) -> None:
    """An image that is not square needs its grid stated; 32 x 24 pixels are 4 x 3 tokens."""
    net = timm_vit()
    state = {prefix + name: value for name, value in net.state_dict().items()}
    path = saved(tmp_path / f"vit{suffix}", state)
    found = read_weights(path, Stated(grid=(4, 3)))
    assert found.layout == "timm ViT"
    images = torch.randn(2, 3, 32, 24)
    agree(found.weights, images, net.forward_features(images))
    with pytest.raises(InputError, match=r"13 rows, which is no square\n.*--file-grid 14,14"):
        read_weights(path)
    for grid in ((3, 3), (4, 3, 1)):
        with pytest.raises(InputError, match="13 rows, which a grid of"):
            read_weights(path, Stated(grid=grid))


def test_safetensors_are_known_by_their_contents(tmp_path: Path) -> None:
    """Whatever a hub or a user named the file."""
    state = timm_vit(img_size=32).state_dict()
    path = saved(tmp_path / "x.safetensors", state).rename(tmp_path / "pytorch_model.bin")
    assert torch.equal(read_weights(path).weights.state["norm.bias"], state["norm.bias"])


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"init_values": 0.3},
        {"no_embed_class": True},
        {"qkv_bias": False},
        {"proj_bias": False},
        {"init_values": 0.3, "proj_bias": False},
        {"img_size": 8},
    ],
    ids=str,
)
def test_timms_variants(tmp_path: Path, options: dict[str, Any]) -> None:
    """Scaled layers, a class token without a place, layers without biases, one token: all are ours in another form."""
    net = timm_vit(**{"img_size": 32, **options})
    images = torch.randn(2, 3, *net.patch_embed.img_size)
    found = read_weights(saved(tmp_path / "vit.pth", {"state_dict": net.state_dict()}))
    agree(found.weights, images, net.forward_features(images))


def test_timm_without_class_token_says_so(tmp_path: Path) -> None:
    net = timm_vit(img_size=32, class_token=False, global_pool="avg")
    found = read_weights(saved(tmp_path / "vit.pth", net.state_dict()))
    assert found.weights.grid == (4, 4)
    encoder = VisionTransformerEncoder(3, (32, 32), (8, 8), DIM, DEPTH, HEADS)
    report = load_encoder(encoder, found.weights, "file")
    assert report.details == (f"random: cls_token 1x1x{DIM}",)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"reg_tokens": 2}, "reg_token"),
        ({"qk_norm": True}, "blocks.0.attn.k_norm.bias"),
        ({"pre_norm": True}, "norm_pre.weight"),
    ],
)
def test_what_would_give_other_tokens_is_refused_by_name(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    path = saved(tmp_path / "vit.pth", timm_vit(img_size=32, **options).state_dict())
    with pytest.raises(InputError, match=f"vit.pth: timm ViT: it has {name}, for which our encoder has no place"):
        read_weights(path)


def test_another_network_of_transformers_is_refused(tmp_path: Path) -> None:
    net = Dinov2Model(Dinov2Config(hidden_size=DIM, num_hidden_layers=1, num_attention_heads=3, image_size=28))
    with pytest.raises(InputError, match=r"transformers ViT: it has .*, for which our encoder has no place"):
        read_weights(saved(tmp_path / "dino.pth", net.state_dict()))


@torch.no_grad()
def test_reference_mae(tmp_path: Path) -> None:
    content = checkpoints.reference_mae()
    found = read_weights(saved(tmp_path / "mae.pth", content))
    assert found.layout == "facebookresearch/mae"
    net = timm_vit(img_size=32)
    net.load_state_dict(content["model"], strict=False)
    images = torch.randn(2, 3, 32, 32)
    agree(found.weights, images, net.forward_features(images))


def selfmedmae_tokens(state: dict[str, Tensor], images: Tensor, table: Tensor) -> Tensor:
    """As PAPER 4 says: patches with the channel last, each its own image of the Conv3d; positions; timm's blocks."""
    cut = images.unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4)  # B C h w d p p p
    patches = cut.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(1, 3)  # B L p p p C
    single = patches.flatten(0, 1).permute(0, 4, 1, 2, 3)
    embedded = nn.functional.conv3d(single, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4)
    x = torch.cat([state["cls_token"].expand(2, -1, -1), embedded.reshape(2, -1, DIM)], 1) + table
    net = timm_vit()
    net.load_state_dict({name: value for name, value in state.items() if "blocks" in name}, strict=False)
    for block in net.blocks:
        x = block(x)
    return nn.functional.layer_norm(x, (DIM,), state["norm.weight"], state["norm.bias"], eps=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("table", ["fixed", "learned", "none", "in the encoder"])
@pytest.mark.parametrize("grid", [(3, 3, 3), (2, 3, 4), (4, 2, 1)])
def test_selfmedmae(tmp_path: Path, table: str, grid: tuple[int, int, int]) -> None:
    """A fixed table tells any grid (4 x 2 x 1 tokens are no cube of 8); a file without one has the fixed one."""
    fixed = fixed_table(grid, DIM)
    if table == "in the encoder":
        content = checkpoints.selfmedmae_unetr(grid)
        rows = content["state_dict"]["encoder.pos_embed"]
    else:
        beside = {"fixed": fixed, "learned": torch.randn_like(fixed), "none": None}[table]
        content = checkpoints.selfmedmae(grid, beside)
        rows = nn.functional.pad(fixed if beside is None else beside, (0, 0, 1, 0))
    said = () if table in ("fixed", "none") or grid == (3, 3, 3) else grid
    found = read_weights(saved(tmp_path / "volume.pth.tar", content), Stated(grid=said))
    assert found.layout == "SelfMedMAE"
    assert found.weights.fixed_positions == (table == "none")
    assert found.weights.grid == (() if table == "none" else grid)
    assert (found.weights.channels, found.weights.patch) == (2, (4, 4, 4))
    state = {name.removeprefix("encoder."): value for name, value in content["state_dict"].items()}
    images = torch.randn(2, 2, *(4 * size for size in grid))
    agree(found.weights, images, selfmedmae_tokens(state, images, rows), grid)


def test_fixed_positions_are_written_where_a_file_needs_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "volume.pth", checkpoints.selfmedmae((2, 3, 4), None))
    with pytest.raises(InputError, match="--file-grid"):
        with_positions(read_weights(path).weights)
    settled = with_positions(read_weights(path, Stated(grid=(2, 3, 4))).weights)
    torch.testing.assert_close(settled.state["pos_embed"], fixed_table((2, 3, 4), DIM)[0])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["vit", "mae", "mae as saved"])
def test_hugging_face(tmp_path: Path, kind: str) -> None:
    """Both sets of names: in memory, and as `save_pretrained` writes them."""
    net = checkpoints.hugging_face_vit() if kind == "vit" else checkpoints.hugging_face_mae()
    if kind == "mae as saved":
        net.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        assert "vit.encoder.layer.0.attention.attention.query.weight" in load_file(path)
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
    agree(found.weights, images, expected)


def monai_tokens(net: Any, images: Tensor) -> Tensor:
    """MONAI's forward without its classifier, which gives the class token alone."""
    x = net.patch_embedding(images)
    x = torch.cat([net.cls_token.expand(len(x), -1, -1), x], dim=1)
    for block in net.blocks:
        x = block(x)
    normed: Tensor = net.norm(x)
    return normed


@torch.no_grad()
@pytest.mark.parametrize(
    ("projection", "size", "stated"),
    [
        ("conv", (16, 16, 16), Stated()),
        ("conv", (16, 16), Stated()),
        ("conv", (8, 12, 16), Stated(grid=(2, 3, 4))),
        ("perceptron", (12, 12, 12), Stated(channels=2)),
        ("perceptron", (16, 16, 16), Stated(channels=2, patch=(4, 4, 4))),
        ("perceptron", (12, 12), Stated(channels=2)),
        ("perceptron", (8, 12, 16), Stated(channels=2, grid=(2, 3, 4))),
        ("perceptron", (8, 12, 16), Stated(channels=2, grid=(2, 3, 4), patch=(4, 4, 4))),
    ],
)
def test_monai(tmp_path: Path, projection: str, size: tuple[int, ...], stated: Stated) -> None:
    net = monai_vit(projection, size)
    found = read_weights(saved(tmp_path / "vit.pt", net.state_dict()), stated)
    assert found.layout == "MONAI ViT"
    assert found.weights.patch == (4,) * len(size)
    images = torch.randn(2, 2, *size)
    agree(found.weights, images, monai_tokens(net, images))


def test_only_tables_that_may_have_a_row_for_the_class_token_are_read_so(tmp_path: Path) -> None:
    """10 rows are 3 x 3 and the class token's in timm; MONAI's and SelfMedMAE's MAE have none, and 28 are no 27."""
    timms = saved(tmp_path / "timm.pth", timm_vit(img_size=24).state_dict())
    assert read_weights(timms).weights.grid == (3, 3)
    monais = saved(tmp_path / "monai.pth", monai_vit("conv", (20, 8)).state_dict())
    volume = saved(tmp_path / "volume.pth", checkpoints.selfmedmae((7, 2, 2), torch.randn(1, 28, DIM)))
    for path, grid in ((monais, (5, 2)), (volume, (7, 2, 2))):
        with pytest.raises(InputError, match="which is no"):
            read_weights(path)
        assert read_weights(path, Stated(grid=grid)).weights.grid == grid


def test_what_monais_perceptron_hides_must_be_stated(tmp_path: Path) -> None:
    """64 tokens are 8 x 8 or 4 x 4 x 4, and 64 values 8 x 8 or 4 x 4 x 4."""
    path = saved(tmp_path / "vit.pt", monai_vit("perceptron", channels=1).state_dict())
    with pytest.raises(InputError, match=r"hides the channels\n.*--file-channels 1"):
        read_weights(path)
    with pytest.raises(InputError, match=r"64 values: which of several patches is not clear\n.*--file-patch"):
        read_weights(path, Stated(channels=1))
    assert read_weights(path, Stated(channels=1, patch=(8, 8))).weights.grid == (8, 8)
    assert read_weights(path, Stated(channels=1, patch=(4, 4, 4))).weights.grid == (4, 4, 4)
    with pytest.raises(InputError, match="64 values: patches of 3 channels is not clear"):
        read_weights(path, Stated(channels=3))


@pytest.mark.parametrize("projection", ["conv", "perceptron"])
def test_monais_unetr_tells_its_channels(tmp_path: Path, projection: str) -> None:
    found = read_weights(saved(tmp_path / "unetr.pt", monai_unetr(4, 32, projection).state_dict()))
    assert (found.weights.channels, found.weights.patch, found.weights.grid) == (4, (16,) * 3, (2,) * 3)


@torch.no_grad()
@pytest.mark.parametrize("library", ["timm", "torchvision", "torchvision, first release"])
def test_convolutional_networks(tmp_path: Path, library: str) -> None:
    """All parameters and all statistics."""
    encoder: Any
    if library == "timm":
        net, encoder = timm.create_model("resnet18").eval(), ResNetEncoder(18, 3, (64, 64), 0.0)
        uneven(net)
        state, expected = net.state_dict(), net.forward_features
    else:
        net, encoder = torchvision.models.densenet121(weights=None).eval(), DenseNetEncoder(3, (64, 64))
        uneven(net)
        state, expected = net.state_dict(), lambda images: net.features(images).relu()
        if "first" in library:
            old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")
            state = {old.sub(r"\1.\2.", name): value for name, value in state.items()}
            assert "features.denseblock1.denselayer1.norm.1.weight" in state
    found = read_weights(saved(tmp_path / "net.pth", state))
    assert found.layout == ("ResNet" if library == "timm" else "DenseNet")
    report = load_encoder(encoder, found.weights, "file")
    assert (report.loaded, report.details) == (1.0, ())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.eval()(images).map, expected(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_exported_to_timm_gives_the_same_tokens_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder: Any = uneven(VisionTransformerEncoder(3, (64, 64), (16, 16), 192, 12, 3))
    save_weights(encoder, tmp_path / "ours.safetensors")
    weights = read_weights(tmp_path / "ours.safetensors").weights
    save_state(tmp_path / "timm.safetensors", to_timm(weights))
    net: Any = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    net.load_state_dict(load_file(tmp_path / "timm.safetensors"), strict=True)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net.forward_features(images), tokens_of(encoder, images), rtol=1e-4, atol=1e-4)
    back = read_weights(tmp_path / "timm.safetensors").weights
    assert all(torch.equal(value, back.state[name]) for name, value in weights.state.items())
    with pytest.raises(InputError, match="images of two axes, these weights have 3"):
        to_timm(Weights(weights.state, 1, (4, 4, 4), (2, 2, 2)))


@torch.no_grad()
@pytest.mark.parametrize("projection", ["conv", "perceptron"])
def test_what_is_exported_to_monai_is_the_encoder_of_its_unetr(tmp_path: Path, projection: str) -> None:
    """All of `vit.` is there, and its blocks give the same tokens as ours do without our class token."""
    torch.manual_seed(0)
    encoder: Any = uneven(VisionTransformerEncoder(4, (32, 32, 32), (16, 16, 16), DIM, 12, HEADS))
    save_weights(encoder, tmp_path / "ours.safetensors")
    weights = read_weights(tmp_path / "ours.safetensors").weights
    net = monai_unetr(4, 32, projection)
    loaded = net.load_state_dict(to_monai(weights, perceptron=projection == "perceptron"), strict=False)
    assert not loaded.unexpected_keys
    assert all("norm_cross_attn" in name for name in loaded.missing_keys if name.startswith("vit."))
    images = torch.randn(2, 4, 32, 32, 32)
    x = encoder.embed(patchify(images, encoder.patch))
    for block in encoder.blocks:
        x = block(x)
    torch.testing.assert_close(net.vit(images)[0], encoder.norm(x), rtol=1e-4, atol=1e-4)
    back = read_weights(saved(tmp_path / "monai.pth", net.state_dict())).weights
    assert weights.state.keys() - back.state.keys() == {"cls_token"}
    assert all(torch.equal(value, weights.state[name]) for name, value in back.state.items())


class Mine:
    """What a malicious checkpoint holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """Refused with what it would have called and what to do, and not with PyTorch's advice of how to run it."""
    torch.save({"model": {"x": torch.zeros(1)}, "more": Mine(tmp_path / "ran")}, tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Mine(tmp_path / "ran"), protocol=2))
    for name in ("bad.pth", "plain.pth"):
        with pytest.raises(InputError, match=f"{name}: refused: it holds more than tensors") as found:
            read_weights(tmp_path / name)
        assert "safetensors" in found.value.hint
        assert "weights_only" not in str(found.value)
        assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have been


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weights_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    with pytest.raises(InputError, match="missing"):
        read_weights(path)
    with pytest.raises(InputError, match="missing"):
        read_weights(tmp_path)
    whole = saved(tmp_path / f"x{suffix}", {"a": torch.zeros(9)}).read_bytes()
    for content in (b"", b"no weights at all", whole[:-9], whole[:20]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"file\{suffix}: not a (readable )?weights file"):
            read_weights(path)
    saved(path, {"some.weight": torch.zeros(3)})
    with pytest.raises(InputError, match="unknown layout"):
        read_weights(path)


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_damaged_bytes_are_an_explained_refusal_or_other_numbers(tmp_path: Path, kind: str) -> None:
    """200 files with a few bytes changed or a piece cut out: never another exception than ours."""
    state = {name: value for name, value in timm_vit(img_size=8).state_dict().items() if "mlp" not in name}
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind == "pickle":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        saved(path, state)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(whole), 3000), 4):
            damaged[place] = random.integers(0, 256)
        if random.random() < 0.3:
            start = random.integers(0, len(whole))
            del damaged[start : start + random.integers(1, 3000)]
        path.write_bytes(damaged)
        # Damage inside a tensor cannot be seen; what is refused is refused with the file's name.
        message = ""
        try:
            read_weights(path)
        except InputError as error:
            message = str(error)
            refused += 1
        assert not message or str(path) in message
    assert refused > 20


@pytest.mark.parametrize("shape", [(DIM, 3), (DIM,), (DIM, 3, 8), (), (DIM, 3, 8, 8, 1, 1)])
def test_kernels_of_no_image_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    state = timm_vit(img_size=32).state_dict() | {"patch_embed.proj.weight": torch.zeros(shape)}
    with pytest.raises(InputError, match=f"patch_embed.proj.weight has {len(shape)} axes"):
        read_weights(saved(tmp_path / "x.pth", state))


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {"epoch": 3}, {0: torch.zeros(2)}, {}, None])
def test_a_checkpoint_without_named_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match=r"x\.pth: no named tensors in it"):
        read_weights(saved(tmp_path / "x.pth", content))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("norm.weight", "looks like timm ViT, but its tensors do not fit: 'norm.weight'"),
        ("pos_embed", "timm ViT: it has no pos_embed"),
        ("blocks.1.norm2.bias", r"timm ViT: it has no blocks\.1\.norm2\.bias"),
    ],
)
def test_what_is_lacking_is_named(tmp_path: Path, name: str, words: str) -> None:
    state = timm_vit(img_size=32).state_dict()
    del state[name]
    with pytest.raises(InputError, match=words):
        read_weights(saved(tmp_path / "vit.pth", state))


def test_what_is_stated_must_hold(tmp_path: Path) -> None:
    path = saved(tmp_path / "vit.pth", timm_vit(img_size=32).state_dict())
    assert read_weights(path, Stated(3, (8, 8), (4, 4))).weights.grid == (4, 4)
    for stated, words in (
        (Stated(channels=1), "its channels: 3, not 1 as stated"),
        (Stated(patch=(4, 4)), r"its patch: \(8, 8\), not \(4, 4\) as stated"),
    ):
        with pytest.raises(InputError, match=words):
            read_weights(path, stated)


def test_values_that_are_no_numbers_are_refused_and_halves_are_made_whole(tmp_path: Path) -> None:
    state = timm_vit(img_size=32).half().state_dict()
    found = read_weights(saved(tmp_path / "half.pth", state))
    assert {value.dtype for value in found.weights.state.values()} == {torch.float32}
    state["blocks.1.norm1.weight"][3] = math.nan
    with pytest.raises(InputError, match=r"half\.pth: blocks\.1\.norm1\.weight has values that are no numbers"):
        read_weights(saved(tmp_path / "half.pth", state))


def test_a_deeper_network_is_not_cut_silently_and_a_volume_is_no_plane(tmp_path: Path) -> None:
    """64 tokens are 8 x 8 as well as 4 x 4 x 4, and 64 voxels 8 x 8 as well as 4 x 4 x 4: numbers do not decide."""
    weights = read_weights(saved(tmp_path / "vit.pth", timm_vit(img_size=32).state_dict())).weights
    report = load_encoder(VisionTransformerEncoder(3, (32, 32), (8, 8), DIM, 2, HEADS), weights, "file")
    assert report.details == ("unused: 12 tensors of the weights, such as blocks.2.norm1.weight",)
    volume = VisionTransformerEncoder(1, (16, 16, 16), (4, 4, 4), DIM, DEPTH, HEADS)
    weights = Weights(volume.state_dict(), 1, volume.patch, volume.grid)
    report = load_encoder(VisionTransformerEncoder(1, (64, 64), (8, 8), DIM, DEPTH, HEADS), weights, "file", waive=True)
    assert [line.split()[:2] for line in report.details] == [
        ["random:", "pos_embed"],
        ["random:", "patch_embed.weight"],
    ]


def test_our_own_file_needs_no_guess(tmp_path: Path) -> None:
    encoder = VisionTransformerEncoder(2, (16, 24, 8), (8, 8, 4), DIM, DEPTH, HEADS)
    save_weights(encoder, tmp_path / "e.safetensors")
    found = read_weights(tmp_path / "e.safetensors")
    assert (found.layout, found.weights.patch, found.weights.grid) == ("mae-bench", (8, 8, 4), (2, 3, 2))
    write_weights(found.weights, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "e.safetensors").read_bytes()
