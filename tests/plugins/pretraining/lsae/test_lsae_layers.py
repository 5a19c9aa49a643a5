"""Layers against explicit statements of them, encoder and networks against the published sizes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from mae_bench.errors import UsageError
from mae_bench_plugins.pretraining.lsae import LSAE, LSAEOptions, Texture, TextureOptions
from mae_bench_plugins.pretraining.lsae.discriminators import ImageDiscriminator, PatchDiscriminator
from mae_bench_plugins.pretraining.lsae.encoder import TextureEncoder
from mae_bench_plugins.pretraining.lsae.generator import Generator
from mae_bench_plugins.pretraining.lsae.layers import (
    GAIN,
    SLOPE,
    Blur,
    Conv,
    EqualLinear,
    ResBlock,
    StyledBlock,
    StyledConv,
)

TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def shaken(module):
    """A module whose biases and noise are not zero: those would hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module.double()


def test_published_sizes():
    """PAPER 5b, found by running the official modules: encoder 10.52 M (9.22 and 1.29), 30.8, 26.3 and 14.4 M."""
    with torch.device("meta"):
        encoder = Texture().build(TextureOptions(), 1, (256, 256))
        objective = LSAE().objective(LSAEOptions(), encoder)
    own = objective.autoencoder
    parts = (encoder, own.structure, own.generator, objective.image_discriminator, objective.patch_discriminator)
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
    assert counts == pytest.approx([9.22, 1.29, 30.8, 26.3, 14.4], rel=0.01)
    assert counts[0] + counts[1] == pytest.approx(10.52, rel=0.01)
    # Fine-tuned with a linear layer of 14 findings: 9.25 M.
    assert counts[0] + (2048 * 14 + 14) / 1e6 == pytest.approx(9.25, rel=0.001)


@torch.no_grad()
@pytest.mark.parametrize("size", [(9, 7), (8, 4)])
def test_blur_is_the_filter(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    blur = Blur().double()
    for b in range(2):
        for c in range(3):
            full = convolve2d(x[b, c], TAPS)  # = padding 3 on every side
            np.testing.assert_allclose(blur(x, 2)[b, c], full[1:-1, 1:-1], atol=1e-12)
            np.testing.assert_allclose(blur(x, 1, stride=2)[b, c], full[2:-2, 2:-2][::2, ::2], atol=1e-12)
            mirrored = convolve2d(np.pad(x[b, c], 2, mode="reflect"), TAPS, mode="valid")
            np.testing.assert_allclose(blur(x, 2, reflect=True)[b, c], mirrored, atol=1e-12)
            spread = np.zeros((2 * size[0], 2 * size[1]))
            spread[::2, ::2] = x[b, c]
            # StyleGAN2 pads two before and one after: the result is centred on the doubled map.
            np.testing.assert_allclose(blur.upsample(x)[b, c], convolve2d(spread, 4 * TAPS)[1:-2, 1:-2], atol=1e-12)


@torch.no_grad()
def test_a_constant_stays_itself_inside():
    """Halving and doubling keep brightness."""
    x = torch.full((1, 2, 16, 16), 3.0)
    blur = Blur()
    for y in (blur(x, 1, stride=2), blur.upsample(x)):
        torch.testing.assert_close(y[..., 2:-2, 2:-2], torch.full_like(y[..., 2:-2, 2:-2], 3))


def act(x):
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def explicit_conv(x, layer, mode):
    """Equalised weights, padding and filter spelt out, before bias and activation."""
    size = layer.weight.shape[-1]
    weight = layer.weight / math.sqrt(layer.weight[0].numel())
    pad = (
        (lambda y, by: F.pad(y, [by] * 4, mode="reflect")) if mode == "reflect" else (lambda y, by: F.pad(y, [by] * 4))
    )
    if layer.blur is None:
        return F.conv2d(pad(x, size // 2), weight)
    taps = torch.from_numpy(TAPS).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.conv2d(pad(x, size // 2 + 1), taps, groups=x.shape[1]), weight)[..., ::2, ::2]


@torch.no_grad()
@pytest.mark.parametrize("reflect", [True, False])
@pytest.mark.parametrize("halve", [True, False])
@pytest.mark.parametrize("side", [8, 9])
def test_residual_block(reflect, halve, side):
    block = shaken(ResBlock(3, 5, halve=halve, reflect=reflect))
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    mode = "reflect" if reflect else "zeros"
    y = act(explicit_conv(x, block.first, mode) + block.first.bias[:, None, None])
    y = act(explicit_conv(y, block.second, mode) + block.second.bias[:, None, None])
    expected = (y + explicit_conv(x, block.skip, mode)) / math.sqrt(2)
    torch.testing.assert_close(block(x), expected)
    assert expected.shape[-1] == (side // 2 if halve else side)


@torch.no_grad()
@pytest.mark.parametrize("double", [True, False])
def test_modulation_is_weights_per_sample(double):
    """Karras et al. 2020, equations 1 and 3, one image after the other with weights of its own."""
    layer = shaken(StyledConv(4, 6, 5, double=double))
    x, style = torch.randn(3, 4, 6, 7, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    expected = []
    for image, one in zip(x, style, strict=True):
        scales = layer.modulation.weight @ one / math.sqrt(5) + layer.modulation.bias
        weight = layer.weight / math.sqrt(4 * 9) * scales[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if double:
            y = F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
            y = F.conv2d(F.pad(y, [1] * 4), 4 * torch.from_numpy(TAPS).repeat(6, 1, 1, 1), groups=6)
        else:
            y = F.conv2d(image[None], weight, padding=1)
        expected.append(y)
    torch.manual_seed(1)
    noise = torch.randn(3, 1, *expected[0].shape[2:], dtype=torch.float64)
    torch.manual_seed(1)
    found = layer(x, style)
    torch.testing.assert_close(
        found, act(torch.cat(expected) + layer.noise * noise + layer.bias[:, None, None]), rtol=1e-5, atol=1e-6
    )  # norms in single precision


@torch.no_grad()
@pytest.mark.parametrize(("inputs", "double"), [(4, False), (6, False), (4, True)])
def test_styled_block(inputs, double):
    block = shaken(StyledBlock(inputs, 6, 5, double=double))
    x, style = torch.randn(2, inputs, 4, 4, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    torch.manual_seed(2)
    found = block(x, style)
    torch.manual_seed(2)
    y = block.second(block.first(x, style), style) * math.sqrt(2)
    beside = x if inputs == 6 else explicit_conv(x, block.skip, "zeros")
    if double:
        beside = Blur().double().upsample(beside)
    torch.testing.assert_close(found, (y + beside) / math.sqrt(2))


@torch.no_grad()
def test_layers_keep_the_scale_of_their_input():
    """What equalised weights and the factors sqrt(2) are for: unit variance in, about unit variance out."""
    torch.manual_seed(0)
    x = torch.randn(4, 64, 16, 16)
    for layer in (Conv(64, 64, 3), ResBlock(64, 64, halve=False)):
        assert layer(x).square().mean().item() == pytest.approx(1, abs=0.35)
    assert EqualLinear(64, 256, activate=True)(torch.randn(64, 64)).square().mean().item() == pytest.approx(1, abs=0.2)
    styled = StyledConv(64, 64, 32)
    assert styled(x, torch.randn(4, 32)).square().mean().item() == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("side", [(1, 1), (1, 4), (3, 1), (2, 2)])
def test_a_border_around_a_narrow_map(side):
    """Leaving out what meets only zeros changes neither the map nor any gradient."""
    torch.manual_seed(0)
    layer = shaken(TextureEncoder(1, (32, 32), 2, 8).head[0])
    x = torch.randn(2, 16, *side, dtype=torch.double, requires_grad=True)
    inputs = (x, *layer.parameters())
    y = layer(x, 1)
    expected = F.leaky_relu(F.conv2d(x, layer.weight * layer.scale, layer.bias * GAIN, 2, 1), SLOPE)
    torch.testing.assert_close(y, expected)
    direction = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad(z, inputs, direction) for z in (y, expected))
    torch.testing.assert_close(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("roi", [(32, 32), (48, 80), (112, 112), (128, 96)])
@pytest.mark.parametrize("channels", [1, 3])
def test_texture_encoder(roi, channels):
    """Any multiple of 16; the map is the head's answer per place, the vector its mean; every parameter in one group."""
    torch.manual_seed(0)
    encoder = TextureEncoder(channels, roi, 4, 12)
    found = encoder(torch.randn(2, channels, *roi))
    assert found.pooled.shape == (2, 12)
    assert found.map.shape == (2, 12, *encoder.grid)
    assert encoder.grid == tuple(size // 16 for size in roi)
    assert found.hidden == ()
    assert encoder.depth == 0
    x = torch.randn(2, channels, *roi)
    stem = encoder.stem(x)
    torch.testing.assert_close(encoder.texture(stem), encoder(x).pooled)
    # Valid convolutions where there is room: (side - 3) // 2 + 1, twice; else half of the side, rounded up.
    small = min(encoder.grid) < 7
    after = [-(-side // 4) if small else ((side - 3) // 2 + 1 - 3) // 2 + 1 for side in encoder.grid]
    assert list(encoder.local(stem).shape[2:]) == after
    ids = [id(parameter) for group in encoder.layer_groups() for parameter in group]
    assert sorted(ids) == sorted(id(parameter) for parameter in encoder.parameters())
    assert len(encoder.layer_groups()) == 1 + 4 + 2 + 1


@torch.no_grad()
@pytest.mark.parametrize("roi", [(32, 32), (48, 80), (208, 208), (96, 32)])
def test_images_of_any_multiple_of_16(roi):
    torch.manual_seed(0)
    grid = tuple(size // 16 for size in roi)
    made = Generator(3, 4, 2, 12)(torch.randn(2, 2, *grid), torch.randn(2, 12))
    assert made.shape == (2, 3, *roi)
    assert ImageDiscriminator(3, min(roi), 4)(made).shape == (2,)


def test_discriminator_levels_follow_the_image():
    """Down to a side of 4 to 7, with StyleGAN2's channels: 16 widths up to 32^2, then half per doubling."""
    for side, blocks, first in (
        (32, 3, 64),
        (48, 3, 32),
        (64, 4, 32),
        (128, 5, 16),
        (224, 5, 8),
        (256, 6, 8),
        (512, 7, 4),
    ):
        with torch.device("meta"):
            maps = ImageDiscriminator(1, side, 4).maps
        assert sum(isinstance(layer, ResBlock) for layer in maps) == blocks
        assert maps[0].weight.shape[0] == first


@torch.no_grad()
def test_the_strongest_patch_speaks():
    """What is said of an image is the largest over its patches: order and repetition do not matter."""
    judge = PatchDiscriminator(1, 4)
    patches = torch.randn(2, 5, 1, 16, 16)
    told = judge.describe(patches)
    torch.testing.assert_close(judge.describe(patches[:, [4, 0, 2, 1, 3, 3]]), told)
    singles = torch.stack([judge.describe(patches[:, [n]]) for n in range(5)])
    torch.testing.assert_close(told, singles.amax(dim=0))


def test_a_wrong_crop_is_refused():
    for roi in ((16, 16), (40, 48), (32, 32, 32)):
        with pytest.raises(UsageError, match=r"recipe\.roi"):
            Texture().check(TextureOptions(), roi)
    Texture().check(TextureOptions(), (32, 240))
