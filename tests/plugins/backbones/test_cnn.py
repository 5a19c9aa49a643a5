"""The convolutional encoders against the libraries they are made of."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from monai.networks import nets
from torch import nn

from mae_bench.engine.transfer import Weights, load_encoder
from mae_bench.errors import UsageError
from mae_bench_plugins.backbones.densenet import DenseNet121, DenseNetOptions
from mae_bench_plugins.backbones.resnet import ResNet, ResNetOptions
from mae_bench_plugins.backbones.vit import ViT, ViTOptions

KINDS: dict[str, tuple[Any, Any]] = {
    "resnet18": (ResNet(18), ResNetOptions()),
    "resnet50": (ResNet(50), ResNetOptions()),
    "densenet121": (DenseNet121(), DenseNetOptions()),
}


def build(name: str, channels: int, roi: tuple[int, ...]) -> Any:
    torch.manual_seed(0)
    plugin, options = KINDS[name]
    return plugin.build(options, channels, roi)


def published(name: str) -> Any:
    """The library's own network with its classifier, as ImageNet weights are given out for."""
    torch.manual_seed(1)
    net: Any = torchvision.models.densenet121(weights=None) if name == "densenet121" else timm.create_model(name)
    for module in net.modules():  # statistics that say something
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("channels", "roi"), [(1, (64, 96)), (4, (32, 64, 32))])
def test_features_are_as_documented(name: str, channels: int, roi: tuple[int, ...]) -> None:
    encoder = build(name, channels, roi).eval()
    found = encoder(torch.randn(2, channels, *roi))
    assert found.map.shape == (2, encoder.dim, *encoder.grid)
    assert found.pooled.shape == (2, encoder.dim)
    assert found.hidden == ()
    torch.testing.assert_close(found.pooled, found.map.flatten(2).mean(2))
    assert [grid * patch for grid, patch in zip(encoder.grid, encoder.patch, strict=True)] == list(roi)
    grouped = [parameter for group in encoder.layer_groups() for parameter in group]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in encoder.parameters()}
    assert len(grouped) == len(list(encoder.parameters()))


@pytest.mark.parametrize("name", KINDS)
def test_published_weights_give_the_published_features(name: str) -> None:
    """All of them, statistics included, from the library's own names."""
    encoder, net = build(name, 3, (64, 64)), published(name)
    report = load_encoder(encoder, Weights(net.state_dict(), 3, (), ()), "file")
    assert (report.loaded, report.random) == (1.0, 0.0)
    image = torch.randn(2, 3, 64, 64)
    expected = net.features(image).relu() if name == "densenet121" else net.forward_features(image)
    torch.testing.assert_close(encoder.eval()(image).map, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_planes_inflate_to_volumes(name: str) -> None:
    """All parameters come from the 2-D weights, and each kernel answers a volume that repeats a plane as the plane."""
    encoder, net = build(name, 3, (32, 32, 32)), published(name)
    report = load_encoder(encoder, Weights(net.state_dict(), 3, (), ()), "file")
    assert report.random == 0
    assert report.inflated > 0.98
    plane = torch.randn(2, 3, 32, 32)
    volume = plane[..., None].expand(2, 3, 32, 32, 32)
    first, peer = (encoder.features.conv0, net.features.conv0) if name == "densenet121" else (encoder.conv1, net.conv1)
    torch.testing.assert_close(first(volume)[..., 8], peer(plane), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "depth"), [("resnet18", 18), ("resnet50", 50)])
def test_volumes_have_monais_parameters(name: str, depth: int) -> None:
    peer = getattr(nets, name)(
        spatial_dims=3, n_input_channels=1, shortcut_type="B", bias_downsample=False, feed_forward=False
    )
    own = sum(p.numel() for p in build(name, 1, (32, 32, 32)).parameters())
    stem = sum(p.numel() for p in peer.conv1.parameters())
    assert own - 64 * 7**3 == sum(p.numel() for p in peer.parameters()) - stem


def test_a_crop_that_is_no_multiple_of_the_stride_is_refused() -> None:
    for plugin, options in KINDS.values():
        with pytest.raises(UsageError, match=r"\(48, 32\) is not a multiple of 32"):
            plugin.check(options, (48, 32))


@pytest.mark.parametrize("name", KINDS)
def test_one_place_of_one_image_cannot_be_normalised(name: str) -> None:
    encoder = build(name, 1, (32, 32))
    with pytest.raises(UsageError, match="batch normalisation"):
        encoder.train()(torch.randn(1, 1, 32, 32))
    assert encoder.eval()(torch.randn(1, 1, 32, 32)).pooled.shape == (1, encoder.dim)


def test_tokens_and_hidden_states_are_not_promised() -> None:
    vit = ViT().provides(ViTOptions())
    for plugin, options in KINDS.values():
        assert vit - plugin.provides(options) == {"tokens", "hidden"}
