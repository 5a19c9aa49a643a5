"""The UNETR decoder: MONAI's network part by part, the published sizes, and every patch it promises to take."""

from typing import Any

import pytest
import torch
from monai.networks.nets import UNETR as MonaiUNETR
from pydantic import ValidationError
from torch import nn

from mae_bench.errors import UsageError
from mae_bench.task import Region, Task
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.heads.unetr import UNETR, UNETROptions
from mae_bench_plugins.heads.unetr.model import UNETRModel


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def encoder(roi: tuple[int, ...], patch: tuple[int, ...], depth: int = 4) -> VisionTransformerEncoder:
    return VisionTransformerEncoder(2, roi, patch, 24, depth, 3)


def vit_base(channels: int, roi: int) -> VisionTransformerEncoder:
    """ViT-B with patches of 16 voxels: shapes only."""
    with torch.device("meta"):
        return VisionTransformerEncoder(channels, (roi,) * 3, (16,) * 3, 768, 12, 12)


def monai(channels: int, outputs: int, roi: int) -> nn.Module:
    with torch.device("meta"):
        return MonaiUNETR(channels, outputs, roi, feature_size=16, conv_block=True, res_block=True, qkv_bias=True)


def ours(channels: int, outputs: int, roi: int) -> UNETRModel:
    base = vit_base(channels, roi)
    with torch.device("meta"):
        return UNETRModel(base, outputs, 16)


@pytest.mark.parametrize(("channels", "outputs", "roi", "millions"), [(1, 14, 96, 92.8), (4, 3, 128, 102.5)])
def test_the_published_sizes(channels: int, outputs: int, roi: int, millions: float) -> None:
    """PAPER 3b: BTCV 92.8 M (encoder 88.4, decoder 4.4), BraTS 102.5 M."""
    model = ours(channels, outputs, roi)
    assert count(model) / 1e6 == pytest.approx(millions, abs=0.1)
    if channels == 1:
        assert count(model.encoder) / 1e6 == pytest.approx(88.4, abs=0.1)
        assert (count(model) - count(model.encoder)) / 1e6 == pytest.approx(4.4, abs=0.1)


@pytest.mark.parametrize(("channels", "outputs", "roi"), [(1, 14, 96), (4, 3, 128)])
def test_it_has_monais_parameters(channels: int, outputs: int, roi: int) -> None:
    """Ours has a class token, which the pre-training needs; MONAI's has unused norms for cross-attention."""
    model, reference = ours(channels, outputs, roi), monai(channels, outputs, roi)
    class_token = 768
    unused = sum(p.numel() for name, p in reference.vit.named_parameters() if "cross_attn" in name)
    assert unused == 12 * 2 * 768
    assert count(model) - class_token == count(reference) - unused
    assert count(model) - count(model.encoder) == count(reference) - count(reference.vit)


def parts(reference: Any) -> dict[str, nn.Module]:
    """MONAI's blocks under our names."""
    skips = reference.encoder2, reference.encoder3, reference.encoder4
    ups = reference.decoder2, reference.decoder3, reference.decoder4, reference.decoder5
    found = {"stem": reference.encoder1, "out": reference.out}
    found |= {f"skips.{k}": block for k, block in enumerate(skips)}
    return found | {f"ups.{k}": block for k, block in enumerate(ups)}


@pytest.mark.parametrize("ndim", [2, 3])
@torch.no_grad()
def test_the_decoder_computes_what_monais_does(ndim: int) -> None:
    """MONAI's decoder weights in ours, and our encoder's maps in MONAI's decoder: the same logits."""
    torch.manual_seed(0)
    roi = (32, 48, 16)[:ndim]
    reference: Any = MonaiUNETR(
        2, 3, roi, feature_size=4, hidden_size=24, mlp_dim=96, num_heads=3, conv_block=True, spatial_dims=ndim
    ).eval()
    model = UNETRModel(encoder(roi, (16,) * ndim, depth=12), 3, 4).eval()
    for name, theirs in parts(reference).items():
        mine = model.get_submodule(name)
        weights = list(theirs.parameters())
        assert [p.shape for p in mine.parameters()] == [p.shape for p in weights], name
        for target, source in zip(mine.parameters(), weights, strict=True):
            target.copy_(source)
    x = torch.randn(1, 2, *roi)
    features = model.encoder(x)
    assert model.taps == [3, 6, 9]
    enc1 = reference.encoder1(x)
    enc2, enc3, enc4 = (
        getattr(reference, f"encoder{number}")(features.hidden[tap]) for number, tap in ((2, 3), (3, 6), (4, 9))
    )
    dec3 = reference.decoder5(features.map, enc4)
    dec2 = reference.decoder4(dec3, enc3)
    dec1 = reference.decoder3(dec2, enc2)
    expected = reference.out(reference.decoder2(dec1, enc1))
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)


SHAPES = [
    ((16, 24, 8), (4, 4, 4)),
    ((16, 8, 24), (8, 8, 8)),
    ((32, 16, 16), (16, 16, 16)),
    ((32, 16, 24), (16, 16, 8)),
    ((16, 16, 4), (8, 8, 1)),
    ((8, 4, 6), (2, 2, 2)),
    ((24, 40), (8, 8)),
    ((32, 16), (16, 4)),
]


@pytest.mark.parametrize(("roi", "patch"), SHAPES)
def test_logits_have_the_size_of_the_input(roi: tuple[int, ...], patch: tuple[int, ...]) -> None:
    model = UNETRModel(encoder(roi, patch), 5, 4)
    logits = model(torch.randn(2, 2, *roi))
    assert logits.shape == (2, 5, *roi)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "cls_token" not in name)
    assert model.encoder.patch_embed.weight.grad.abs().max() > 0


@torch.no_grad()
def test_another_input_size_is_taken() -> None:
    model = UNETRModel(encoder((16, 16, 16), (8, 8, 8)), 2, 4).eval()
    assert model(torch.randn(1, 2, 24, 16, 32)).shape == (1, 2, 24, 16, 32)


@pytest.mark.parametrize(("patch", "levels"), [(2, 1), (4, 2), (8, 3), (16, 4)])
def test_levels_and_taps(patch: int, levels: int) -> None:
    model = UNETRModel(encoder((32, 32), (patch, patch), depth=12), 2, 4)
    assert (len(model.ups), len(model.skips)) == (levels, levels - 1)
    assert model.taps == {1: [], 2: [6], 3: [4, 8], 4: [3, 6, 9]}[levels]


def test_the_shallowest_encoder_has_enough_states() -> None:
    model = UNETRModel(encoder((16, 16), (16, 16), depth=2), 2, 4).eval()
    assert max(model.taps) < 2
    with torch.no_grad():
        assert model(torch.randn(1, 2, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize("patch", [(12, 12), (6, 6, 6), (8, 8, 3), (1, 1, 1)])
def test_a_patch_that_is_no_power_of_two_is_refused(patch: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="power of two"):
        UNETRModel(encoder(tuple(2 * size for size in patch), patch), 2, 4)


def test_the_plugin() -> None:
    task = Task(kind="segmentation", channels=("a", "b"), regions=(Region(name="r", labels=(1,), paint=1),))
    model = UNETR().build(UNETROptions(features=4), encoder((16, 16), (8, 8)), task)
    with torch.no_grad():
        assert model(torch.randn(1, 2, 16, 16)).shape == (1, 2, 16, 16)
    assert UNETR().needs(UNETROptions()) == {"map", "hidden", "segmentation"}
    for features in (1, 129):
        with pytest.raises(ValidationError, match="features"):
            UNETROptions(features=features)
