"""The residual networks: their size, 3-D answers, layer decay and stochastic depth against timm and MONAI."""

from typing import Any, Literal

import pytest
import timm
import torch
from monai.networks import nets
from torch import nn

from mae_bench.engine.finetune import layer_scales
from mae_bench.errors import UsageError
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench_plugins.backbones.resnet import ResNet, ResNetOptions
from mae_bench_plugins.heads.classifier.model import ClassifierModel

DEPTHS: list[Literal[18, 50]] = [18, 50]


def build(depth: Literal[18, 50], channels: int, roi: tuple[int, ...], drop_path: float = 0.0) -> Any:
    torch.manual_seed(0)
    return ResNet(depth).build(ResNetOptions(), channels, roi, drop_path)


@pytest.mark.parametrize(("depth", "published", "classifier"), [(18, 11_689_512, 513_000), (50, 25_557_032, 2_049_000)])
def test_size_is_the_published_one(depth: Literal[18, 50], published: int, classifier: int) -> None:
    """As torchvision's model table, less the layer of 1000 classes."""
    own = sum(parameter.numel() for parameter in build(depth, 3, (32, 32)).parameters())
    peer = timm.create_model(f"resnet{depth}", num_classes=0)
    assert own == published - classifier == sum(parameter.numel() for parameter in peer.parameters())


@pytest.mark.parametrize("depth", DEPTHS)
@torch.no_grad()
def test_volumes_are_answered_as_by_monai(depth: Literal[18, 50]) -> None:
    own = build(depth, 4, (64, 32, 64)).eval()
    peer = getattr(nets, f"resnet{depth}")(
        spatial_dims=3, n_input_channels=4, conv1_t_stride=2, shortcut_type="B", bias_downsample=False,
        feed_forward=False,
    ).eval()  # fmt: skip
    peer.load_state_dict(own.state_dict())
    x = torch.randn(2, 4, 64, 32, 64)
    torch.testing.assert_close(own(x).pooled, peer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("roi", [(64, 32), (32, 32, 64)])
@pytest.mark.parametrize("depth", DEPTHS)
def test_layer_decay_counts_the_layers_above(depth: Literal[18, 50], roi: tuple[int, ...]) -> None:
    """Decay of a half: the head and the last norm learn at the full rate, the stem at a 32nd."""
    model = ClassifierModel(build(depth, 1, roi), 2)
    scales = layer_scales(model, 0.5)
    by_name = {name: scales.get(parameter, 1.0) for name, parameter in model.named_parameters()}
    last = f"encoder.layer4.{1 if depth == 18 else 2}"
    assert by_name["encoder.conv1.weight"] == by_name["encoder.bn1.bias"] == 0.5**5
    for stage in (1, 2, 3, 4):
        assert by_name[f"encoder.layer{stage}.0.conv1.weight"] == 0.5 ** (5 - stage)
    norm = "bn2" if depth == 18 else "bn3"
    assert by_name[f"{last}.{norm}.weight"] == by_name[f"{last}.{norm}.bias"] == by_name["layer.weight"] == 1
    assert by_name[f"{last}.bn1.weight"] == 0.5


def test_stochastic_depth_is_in_planes_while_training() -> None:
    """Volumes go without: MONAI's blocks cannot be left out."""
    x = torch.randn(8, 1, 64, 64)
    for rate, differs in ((0.0, False), (0.5, True)):
        encoder = build(18, 1, (64, 64), rate)
        for module in encoder.modules():  # timm's blocks start as shortcuts: leaving them out would not show
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        with torch.no_grad():
            assert torch.equal(encoder.train()(x).map, encoder(x).map) != differs
            assert torch.equal(encoder.eval()(x).map, encoder(x).map)
    volume = torch.randn(2, 1, 32, 32, 32)
    with torch.no_grad():
        deep, flat = (build(18, 1, (32, 32, 32), rate).train()(volume).map for rate in (0.5, 0.0))
    assert torch.equal(deep, flat)


@pytest.mark.parametrize("roi", [(32, 64), (32, 32, 64)])
def test_one_seed_gives_the_same_gradients_bit_for_bit(roi: tuple[int, ...]) -> None:
    found = []
    for _ in range(2):
        encoder = build(18, 3, roi).train()
        encoder(torch.randn(2, 3, *roi)).pooled.square().sum().backward()
        found.append([parameter.grad for parameter in encoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(("roi", "channels"), [((64, 64), 3), ((64, 64, 64), 4)])
@torch.no_grad()
def test_half_precision_answers_alike(roi: tuple[int, ...], channels: int) -> None:
    encoder, x = build(18, channels, roi), torch.randn(2, channels, *roi)
    encoder.train()(x)  # statistics of its own: features of size one
    whole = encoder.eval()(x).map
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(x).map
    assert (half.float() - whole).norm() < 0.05 * whole.norm()


def test_half_precision_trains() -> None:
    """In 2-D: oneDNN's bf16 weight gradient of 3-D maps of 2 x 2 x 2 is wrong, and the engine has bf16 on CUDA only."""
    encoder = build(18, 3, (64, 64)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(torch.randn(4, 3, 64, 64))
    found.pooled.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "densenet121"])
def test_what_needs_tokens_is_refused_with_the_reason(backbone: str) -> None:
    """MAE leaves masked patches out, UNETR reads the states of the blocks: convolutions offer neither."""
    cases = [("mae", "linear", "pretrain mae needs tokens"), ("scratch", "unetr", "head unetr needs hidden")]
    for pretrain, head, why in cases:
        with pytest.raises(UsageError, match=why):
            resolve(Request("mni152", pretrain, backbone, head, "smoke", demo=True), registry())
    assert resolve(Request("mni152", "scratch", backbone, "linear", "smoke", demo=True), registry()).recipe.roi


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "densenet121"])
def test_an_impossible_crop_is_refused_before_any_data_are_read(backbone: str) -> None:
    request = Request(
        "mni152", "scratch", backbone, "linear", "smoke", demo=True, settings={"recipe.roi": "[32, 32, 40]"}
    )
    with pytest.raises(UsageError, match=rf"\(32, 32, 40\) is not a multiple of 32, as {backbone} needs: --set recipe"):
        resolve(request, registry())
