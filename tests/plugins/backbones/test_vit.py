"""The encoder against timm's VisionTransformer, and what the plugin promises of it."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer

from mae_bench.errors import UsageError
from mae_bench.tokens import patchify, resize_positions, sincos_positions
from mae_bench_plugins.backbones.vit import SIZES, ViT, ViTOptions
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder

ROIS = [((16, 24), (4, 8)), ((8, 12, 16), (4, 4, 8)), ((8, 8, 8), (4, 4, 4))]


def encoder(
    roi: tuple[int, ...], patch: tuple[int, ...], channels: int = 2, depth: int = 3, position: str = "sincos"
) -> VisionTransformerEncoder:
    torch.manual_seed(0)
    made = VisionTransformerEncoder(channels, roi, patch, 24, depth, 3, position=position).eval()
    # Zero biases and unit norms would hide a mistake in them.
    for parameter in made.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    return made


def timms_twin(ours: VisionTransformerEncoder, roi: tuple[int, int], channels: int) -> VisionTransformer:
    """The model of the library with our weights; its class token has a position, ours has none."""
    twin = VisionTransformer(
        img_size=roi, patch_size=ours.patch, in_chans=channels, num_classes=0, embed_dim=24, depth=ours.depth,
        num_heads=3,
    )  # fmt: skip
    same = ("blocks.", "norm.", "cls_token")
    state = {name: value for name, value in ours.state_dict().items() if name.startswith(same)}
    state["pos_embed"] = torch.cat([torch.zeros(1, 24), ours.pos_embed.detach()])[None]
    state["patch_embed.proj.weight"] = ours.patch_embed.weight.detach().reshape(twin.patch_embed.proj.weight.shape)
    state["patch_embed.proj.bias"] = ours.patch_embed.bias.detach()
    twin.load_state_dict(state)
    return twin.eval()


@pytest.mark.parametrize(("roi", "patch"), [((16, 24), (4, 8)), ((32, 32), (16, 16))])
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_it_is_timms_vision_transformer(roi: tuple[int, int], patch: tuple[int, int], channels: int) -> None:
    ours = encoder(roi, patch, channels)
    twin = timms_twin(ours, roi, channels)
    assert torch.equal(twin.patch_embed.proj.weight.flatten(1), ours.patch_embed.weight)
    x = torch.randn(2, channels, *roi)
    tokens = twin.forward_features(x)
    found = ours(x)
    torch.testing.assert_close(found.pooled, tokens[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.map.flatten(2).transpose(1, 2), tokens[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.encode(ours.embed(patchify(x, patch))), tokens, atol=1e-5, rtol=0)
    _, hidden = twin.forward_intermediates(x, indices=None, norm=False, output_fmt="NCHW")
    for mine, theirs in zip(found.hidden, hidden, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("roi", "patch"), ROIS)
@torch.no_grad()
def test_shapes(roi: tuple[int, ...], patch: tuple[int, ...]) -> None:
    ours = encoder(roi, patch)
    found = ours(torch.randn(3, 2, *roi))
    grid = tuple(size // part for size, part in zip(roi, patch, strict=True))
    assert (ours.grid, ours.patch, ours.dim, ours.depth, ours.channels) == (grid, patch, 24, 3, 2)
    assert found.pooled.shape == (3, 24)
    assert found.map.shape == (3, 24, *grid)
    assert [tuple(each.shape) for each in found.hidden] == [(3, 24, *grid)] * 3


@pytest.mark.parametrize(("roi", "patch"), ROIS)
@torch.no_grad()
def test_the_map_keeps_places(roi: tuple[int, ...], patch: tuple[int, ...]) -> None:
    """Without blocks and norm, the map is the convolution of the image plus the table."""
    ours = encoder(roi, patch)
    ours.blocks, ours.norm = torch.nn.ModuleList(), torch.nn.Identity()
    x = torch.randn(2, 2, *roi)
    convolution = torch.nn.functional.conv2d if len(roi) == 2 else torch.nn.functional.conv3d
    kernel = ours.patch_embed.weight.reshape(24, 2, *patch)
    positions = ours.pos_embed.T.reshape(24, *ours.grid)
    expected = convolution(x, kernel, ours.patch_embed.bias, stride=patch) + positions
    torch.testing.assert_close(ours(x).map, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_chosen_subset_of_patches() -> None:
    """Tokens in any order, with their own positions, give the same answers: attention does not count places."""
    ours = encoder((8, 12, 16), (4, 4, 8))
    x = torch.randn(2, 2, 8, 12, 16)
    patches = patchify(x, ours.patch)
    order = torch.stack([torch.randperm(12) for _ in range(2)])
    shuffled = torch.stack([patches[row, order[row]] for row in range(2)])
    whole, mixed = ours.encode(ours.embed(patches)), ours.encode(ours.embed(shuffled, order))
    torch.testing.assert_close(mixed[:, 0], whole[:, 0], atol=1e-5, rtol=0)
    back = torch.stack([mixed[row, 1:][order[row].argsort()] for row in range(2)])
    torch.testing.assert_close(back, whole[:, 1:], atol=1e-5, rtol=0)
    few = ours.encode(ours.embed(shuffled[:, :3], order[:, :3]))
    assert few.shape == (2, 4, 24)
    assert not torch.allclose(few[:, 0], whole[:, 0], atol=1e-3)


@pytest.mark.parametrize(("roi", "patch"), ROIS)
@torch.no_grad()
def test_another_input_size_gets_an_interpolated_table(roi: tuple[int, ...], patch: tuple[int, ...]) -> None:
    ours = encoder(roi, patch)
    other = tuple(size + part for size, part in zip(roi, patch, strict=True))
    grid = tuple(size // part for size, part in zip(other, patch, strict=True))
    resized = encoder(other, patch)
    state = ours.state_dict() | {"pos_embed": resize_positions(ours.pos_embed.detach(), ours.grid, grid)}
    resized.load_state_dict(state)
    x = torch.randn(1, 2, *other)
    torch.testing.assert_close(ours(x).map, resized(x).map, atol=1e-5, rtol=0)
    assert ours(x).map.shape == (1, 24, *grid)


def test_positions() -> None:
    sincos, learned = encoder((8, 12), (4, 4)), encoder((8, 12), (4, 4), position="learned")
    assert torch.equal(sincos.pos_embed, sincos_positions((2, 3), 24))
    assert sincos.pos_embed.requires_grad
    assert learned.pos_embed.requires_grad
    wide = VisionTransformerEncoder(1, (128, 128), (4, 4), 24, 2, 3, position="learned").pos_embed.detach()
    assert float(wide.std()) == pytest.approx(0.02, rel=0.05)
    assert float(wide.mean()) == pytest.approx(0, abs=1e-3)


def test_the_start_of_training() -> None:
    """He et al. 2022, appendix A.1: Xavier-uniform linear layers, qkv as one matrix; class token N(0, 0.02)."""
    torch.manual_seed(0)
    made = VisionTransformerEncoder(1, (8, 8, 8), (4, 4, 4), 192, 2, 3)
    for name, module in made.named_modules():
        if isinstance(module, torch.nn.Linear):
            bound = math.sqrt(6 / sum(module.weight.shape))
            assert 0.99 * bound < float(module.weight.detach().abs().max()) <= bound, name
            assert float(module.bias.detach().abs().max()) == 0, name
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6, name
    assert float(made.cls_token.detach().std()) == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(("roi", "patch"), ROIS)
def test_layer_groups_hold_every_parameter_once(roi: tuple[int, ...], patch: tuple[int, ...]) -> None:
    ours = encoder(roi, patch, depth=5)
    groups = ours.layer_groups()
    ids = [id(parameter) for group in groups for parameter in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in ours.parameters()}
    assert len(groups) == 5 + 2
    assert {id(p) for p in groups[3]} == {id(p) for p in ours.blocks[2].parameters()}
    assert {id(p) for p in groups[-1]} == {id(p) for p in ours.norm.parameters()}
    assert id(ours.pos_embed) in {id(p) for p in groups[0]}


def build(
    roi: tuple[int, ...] = (32, 32, 32), channels: int = 1, drop_path: float = 0.0, **options: object
) -> VisionTransformerEncoder:
    made = ViT().build(ViTOptions.model_validate({"size": "tiny", "depth": 2} | options), channels, roi, drop_path)
    assert isinstance(made, VisionTransformerEncoder)
    return made


@pytest.mark.parametrize(("size", "millions"), [("tiny", 5.7), ("small", 22.1), ("base", 86.6), ("large", 304.3)])
def test_sizes(size: str, millions: float) -> None:
    """Parameters of the published models for 224 x 224 colour images, with their head of 1000 classes taken off."""
    with torch.device("meta"):
        made = build((224, 224), 3, size=size, depth=None)
    dim, depth, _ = SIZES[size]
    assert (made.dim, made.depth, len(made.blocks)) == (dim, depth, depth)
    head = dim * 1000 + 1000
    assert sum(p.numel() for p in made.parameters()) + head + dim == pytest.approx(millions * 1e6, abs=0.06e6)


def test_the_depth_option() -> None:
    assert len(build(depth=5).blocks) == 5
    for depth in (1, 65):
        with pytest.raises(ValidationError, match="depth"):
            ViTOptions(depth=depth)


def test_drop_path_rises_to_the_last_block() -> None:
    made = build(depth=5, drop_path=0.2)
    rates = [[module.drop_prob for module in block.modules() if isinstance(module, DropPath)] for block in made.blocks]
    np.testing.assert_allclose([max(rate, default=0.0) for rate in rates], np.linspace(0, 0.2, 5))
    assert not any(isinstance(module, DropPath) for module in build(depth=5).modules())


def test_drop_path_acts_in_training_alone() -> None:
    made, x = build(depth=4, drop_path=0.9), torch.randn(2, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(made.eval()(x).pooled, made(x).pooled)
        assert not torch.equal(made.train()(x).pooled, made(x).pooled)


@pytest.mark.parametrize(
    ("roi", "patch"),
    [((32, 32, 40), (16,)), ((32, 32), (16, 16, 16)), ((32, 32, 32), (16, 16)), ((8, 8, 8), (16,)), ((33, 32), (8,))],
)
def test_a_crop_that_is_no_whole_number_of_patches(roi: tuple[int, ...], patch: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="not a whole number of patches") as caught:
        build(roi, patch=patch)
    assert "recipe.roi" in str(caught.value)
    assert "backbone.patch" in str(caught.value)


@pytest.mark.parametrize("patch", [(0,), (-8,), (8, 0, 8), (), (8, 8, 8, 8)])
def test_a_patch_that_is_none_is_refused(patch: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="patch"):
        ViTOptions(patch=patch)


def test_one_patch_size_serves_every_axis() -> None:
    assert build(patch=(8,)).patch == (8, 8, 8)
    assert build((32, 32), patch=(8,)).patch == (8, 8)
    assert build(patch=(8, 16, 32)).grid == (4, 2, 1)


@pytest.mark.parametrize(("patch", "axes"), [((8,), {"2d", "3d"}), ((8, 8), {"2d"}), ((8, 8, 4), {"3d"})])
def test_words(patch: tuple[int, ...], axes: set[str]) -> None:
    words = ViT().provides(ViTOptions(patch=patch))
    assert words >= {"tokens", "map", "hidden", "pooled"}
    assert words & {"2d", "3d"} == axes
    assert ViT().needs(ViTOptions()) == frozenset()


def test_building_is_repeatable() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(position="learned").state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
