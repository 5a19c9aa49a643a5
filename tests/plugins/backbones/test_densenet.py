"""The densely connected network: its size, 3-D answers and layer groups against torchvision and MONAI."""

import re
from typing import Any

import pytest
import torch
import torchvision
from monai.networks import nets

from mae_bench_plugins.backbones.densenet import DenseNet121, DenseNetOptions


def build(channels: int, roi: tuple[int, ...]) -> Any:
    torch.manual_seed(0)
    return DenseNet121().build(DenseNetOptions(), channels, roi)


def test_size_is_the_published_one() -> None:
    """As torchvision's model table, less the layer of 1000 classes."""
    own = sum(parameter.numel() for parameter in build(3, (32, 32)).parameters())
    peer = torchvision.models.densenet121(weights=None)
    assert own == 7_978_856 - 1_025_000 == sum(parameter.numel() for parameter in peer.features.parameters())


@torch.no_grad()
def test_volumes_are_answered_as_by_monai() -> None:
    """All of its weights fit, under torchvision's names: its own have one level more."""
    own = build(4, (64, 32, 64)).eval()
    peer: Any = nets.DenseNet121(spatial_dims=3, in_channels=4, out_channels=1).eval()
    inner = re.compile(r"(denselayer\d+)\.")
    peer.features.load_state_dict(
        {inner.sub(r"\1.layers.", name): value for name, value in own.features.state_dict().items()}
    )
    x = torch.randn(2, 4, 64, 32, 64)
    torch.testing.assert_close(own(x).map, peer.features(x).relu(), rtol=1e-4, atol=1e-5)


def test_planes_and_volumes_have_the_same_names() -> None:
    plane, volume = (build(3, roi).state_dict() for roi in ((32, 32), (32, 32, 32)))
    assert list(plane) == list(volume)
    assert all(value.shape == volume[name].shape[: value.ndim] for name, value in plane.items())


@pytest.mark.parametrize("channels", [1, 4])
def test_a_first_layer_for_other_channels_starts_as_large(channels: int) -> None:
    """He's initialisation: the deviation is the root of 2 over the inputs of a place."""
    weight = build(channels, (32, 32)).features.conv0.weight
    assert weight.shape == (64, channels, 7, 7)
    assert weight.std().item() == pytest.approx((2 / (channels * 49)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("roi", [(32, 32), (32, 32, 32)])
def test_layer_groups_rise_from_the_stem_to_the_last_norm(roi: tuple[int, ...]) -> None:
    encoder = build(1, roi)
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    found = [
        {".".join(names[id(parameter)].split(".")[1:2]) for parameter in group} for group in encoder.layer_groups()
    ]
    assert found == [
        {"conv0", "norm0"}, {"denseblock1", "transition1"}, {"denseblock2", "transition2"},
        {"denseblock3", "transition3"}, {"denseblock4"}, {"norm5"},
    ]  # fmt: skip


@pytest.mark.parametrize("roi", [(32, 64), (32, 32, 64)])
def test_one_seed_gives_the_same_gradients_bit_for_bit(roi: tuple[int, ...]) -> None:
    found = []
    for _ in range(2):
        encoder = build(3, roi).train()
        encoder(torch.randn(2, 3, *roi)).pooled.square().sum().backward()
        found.append([parameter.grad for parameter in encoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(("roi", "channels"), [((64, 64), 3), ((64, 64, 64), 4)])
@torch.no_grad()
def test_half_precision_answers_alike(roi: tuple[int, ...], channels: int) -> None:
    encoder, x = build(channels, roi), torch.randn(2, channels, *roi)
    encoder.train()(x)  # statistics of its own: features of size one
    whole = encoder.eval()(x).map
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(x).map
    assert (half.float() - whole).norm() < 0.05 * whole.norm()


def test_half_precision_trains() -> None:
    """In 2-D: oneDNN's bf16 weight gradient of 3-D maps of 2 x 2 x 2 is wrong, and the engine has bf16 on CUDA only."""
    encoder = build(3, (64, 64)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(torch.randn(4, 3, 64, 64))
    found.pooled.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())
