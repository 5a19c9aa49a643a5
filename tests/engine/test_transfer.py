"""Weights for an encoder of another size: every parameter accounted for, values against closed forms."""

import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.engine.transfer import Weights, fit_kernel, fit_positions, load_encoder
from mae_bench.errors import InputError
from mae_bench_plugins.backbones.resnet.model import ResNetEncoder
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder

law = settings(max_examples=30, deadline=None)


def make(channels: int, roi: tuple[int, ...], patch: tuple[int, ...], dim: int = 48, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return VisionTransformerEncoder(channels, roi, patch, dim, 2, 3)


def weights_of(encoder: Any) -> Weights:
    return Weights(encoder.state_dict(), encoder.channels, encoder.patch, encoder.grid)


def test_the_same_geometry_is_copied_bit_for_bit() -> None:
    old, new = make(1, (32, 32), (8, 8)), make(1, (32, 32), (8, 8), seed=1)
    report = load_encoder(new, weights_of(old), "other")
    assert (report.loaded, report.details) == (1.0, ())
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


@pytest.mark.parametrize(
    ("channels", "roi", "patch", "words"),
    [
        (1, (48, 32), (8, 8), ["resized: pos_embed 16x48 to 24x48"]),
        (3, (32, 32), (8, 8), ["inflated: patch_embed.weight 48x64 to 48x192"]),
        (1, (64, 64), (16, 16), ["resized: patch_embed.weight 48x64 to 48x256"]),
        (1, (16, 64), (8, 8), ["resized: pos_embed 16x48 to 16x48"]),
        (4, (32, 32, 16), (8, 8, 8), ["inflated: patch_embed.weight", "inflated: pos_embed"]),
    ],
)
def test_what_differs_is_fitted_and_reported(
    channels: int, roi: tuple[int, ...], patch: tuple[int, ...], words: list[str]
) -> None:
    """Roi, patch, channels and axes; the third keeps its grid, the fourth its number of tokens."""
    old, new = make(1, (32, 32), (8, 8)), make(channels, roi, patch, seed=1)
    report = load_encoder(new, weights_of(old), "other")
    for word in words:
        assert any(line.startswith(word) for line in report.details), report.details
    assert report.random == 0
    assert report.loaded + report.resized + report.inflated == pytest.approx(1)
    assert torch.isfinite(new(torch.randn(1, channels, *roi)).pooled).all()


def test_a_pretrained_vit_fits_where_everything_differs() -> None:
    """Another roi, patch and number of channels at once: a grey constant is embedded alike, and all of it is told."""
    old, new = make(1, (32, 32), (8, 8)), make(4, (48, 36), (12, 6), seed=1)
    report = load_encoder(new, weights_of(old), "other")
    assert sorted(report.details) == [
        "inflated: patch_embed.weight 48x64 to 48x288", "resized: pos_embed 16x48 to 24x48",
    ]  # fmt: skip
    assert (report.random, report.waived) == (0, False)
    assert report.loaded + report.resized + report.inflated == pytest.approx(1)
    total = sum(parameter.numel() for parameter in new.parameters())
    assert report.resized == pytest.approx(new.pos_embed.numel() / total)
    assert report.inflated == pytest.approx(new.patch_embed.weight.numel() / total)
    grey = [encoder.patch_embed(torch.full((1, encoder.patch_embed.in_features), 0.7)) for encoder in (old, new)]
    torch.testing.assert_close(*grey, rtol=1e-4, atol=1e-5)


def network(roi: tuple[int, ...], channels: int = 3, depth: Literal[18, 50] = 18) -> Any:
    torch.manual_seed(len(roi))
    return ResNetEncoder(depth, channels, roi, 0.0)


@pytest.mark.parametrize(("roi", "channels"), [((32, 64), 3), ((32, 64), 1), ((32, 32, 32), 4)])
def test_statistics_are_copied_with_the_parameters(roi: tuple[int, ...], channels: int) -> None:
    old, new = network((64, 64)), network(roi, channels)
    with torch.no_grad():
        old.train()(torch.randn(4, 3, 64, 64))
    report = load_encoder(new, Weights(old.state_dict(), 3, (), ()), "other")
    there = old.state_dict()
    assert int(new.bn1.num_batches_tracked) == 1
    for name, value in new.named_buffers():
        assert torch.equal(value, there[name]), name
    assert report.loaded + report.resized + report.inflated + report.random == pytest.approx(1)
    assert not any(line.startswith(("missing", "random")) for line in report.details)


def test_missing_statistics_are_told() -> None:
    """They are no parameters, so they are in no share; an encoder in evaluation mode depends on them all the same."""
    old, new = network((32, 32)), network((32, 32))
    report = load_encoder(new, Weights(dict(old.named_parameters()), 3, (), ()), "other")
    assert report.loaded == 1.0
    assert report.details == ("missing: 40 statistics, which stay as they were, such as bn1.running_mean",)


def test_a_kernel_of_another_size_is_not_a_smaller_one() -> None:
    """Of a network of 18 layers, one of 50 takes no 3 x 3 kernel for its 1 x 1 x 1, though both are 64 by 64."""
    report = load_encoder(
        network((32, 32, 32), depth=50), Weights(network((32, 32)).state_dict(), 3, (), ()), "x", waive=True
    )
    assert "random: layer1.0.conv1.weight 64x64x1x1x1, the weights have 64x64x3x3" in report.details
    assert "inflated: layer1.0.conv2.weight 64x64x3x3 to 64x64x3x3x3" in report.details


def test_too_little_is_refused_by_name_unless_waived() -> None:
    old, new = make(1, (32, 32), (8, 8), dim=24), make(1, (32, 32), (8, 8))
    before = {name: value.clone() for name, value in new.state_dict().items()}
    with pytest.raises(
        InputError, match=r"only 0\.0% of the encoder's parameters are in the weights from other"
    ) as found:
        load_encoder(new, weights_of(old), "other")
    assert "random: pos_embed 16x48, the weights have 16x24" in found.value.problems
    assert all(torch.equal(value, before[name]) for name, value in new.state_dict().items())
    report = load_encoder(new, weights_of(old), "other", waive=True)
    assert report.waived
    assert report.random == 1.0


@law
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple),
    st.lists(st.integers(1, 9), min_size=3, max_size=3).map(tuple),
)
def test_a_fitted_kernel_answers_a_grey_constant_alike(
    old: int, new: int, size: tuple[int, ...], target: tuple[int, ...]
) -> None:
    """One value in all channels and everywhere: the sum of the kernel must stay, whatever is changed about it."""
    kernel = torch.randn(5, old, *size, dtype=torch.float64)
    fitted, _ = fit_kernel(kernel, new, target)
    assert fitted.shape == (5, new, *target)
    torch.testing.assert_close(fitted.flatten(1).sum(1), kernel.flatten(1).sum(1))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([1.0, 2.0, 4.0], 1, [7.0]),
        ([1.0, 2.0, 4.0], 2, [5.0, 2.0]),
        ([1.0, 2.0, 4.0], 4, [0.5, 2.0, 4.0, 0.5]),
        ([1.0, 2.0, 4.0], 6, [0.5, 1.0, 2.0, 0.5, 1.0, 2.0]),
        ([6.0], 3, [2.0, 2.0, 2.0]),
    ],
)
def test_channels_are_shared_out_or_summed_in_turn(old: list[float], new: int, expected: list[float]) -> None:
    fitted, fate = fit_kernel(torch.tensor(old).reshape(1, -1, 1, 1), new, (1, 1))
    assert fitted.flatten().tolist() == expected
    assert fate == "inflated"


@law
@given(st.sampled_from([(8, 8), (4, 6), (2, 4, 3)]), st.sampled_from([(16, 16), (4, 4), (5, 7), (4, 2, 6), (3, 3, 3)]))
def test_a_resized_kernel_has_the_shape_of_linear_interpolation(size: tuple[int, ...], target: tuple[int, ...]) -> None:
    """It differs from it by one number per channel, which keeps the mean."""
    if len(size) != len(target):
        return
    kernel = torch.randn(3, 2, *size, dtype=torch.float64)
    plain = F.interpolate(kernel, target, mode="bilinear" if len(size) == 2 else "trilinear")
    found = fit_kernel(kernel, 2, target)[0] * (math.prod(target) / math.prod(size))
    difference = (found - plain).flatten(2)
    torch.testing.assert_close(difference, difference[..., :1].expand_as(difference))
    torch.testing.assert_close(found.flatten(2).mean(2), kernel.flatten(2).mean(2))


def test_a_new_axis_repeats_the_plane() -> None:
    kernel, image = torch.randn(2, 3, 5, 5), torch.randn(1, 3, 9, 9)
    fitted, fate = fit_kernel(kernel, 3, (5, 5, 4))
    volume = image[..., None].expand(1, 3, 9, 9, 4)
    torch.testing.assert_close(F.conv3d(volume, fitted)[..., 0], F.conv2d(image, kernel), rtol=1e-4, atol=1e-4)
    assert fate == "inflated"


@pytest.mark.parametrize(("old", "new"), [((4, 4), (6, 5)), ((3, 4, 5), (6, 4, 2))])
def test_positions_are_interpolated_as_images_are(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    table = torch.randn(math.prod(old), 6)
    fitted, fate = fit_positions(table, old, new)
    mode = "bilinear" if len(old) == 2 else "trilinear"
    expected = F.interpolate(table.T.reshape(1, 6, *old), new, mode=mode).flatten(2)[0].T
    torch.testing.assert_close(fitted, expected)
    assert fate == "resized"


def test_positions_of_planes_repeat_along_the_new_axis() -> None:
    table = torch.randn(6, 4)
    fitted, fate = fit_positions(table, (2, 3), (2, 3, 5))
    torch.testing.assert_close(fitted.reshape(2, 3, 5, 4), table.reshape(2, 3, 1, 4).expand(2, 3, 5, 4))
    assert fate == "inflated"


def test_a_volume_does_not_fit_a_plane() -> None:
    report = load_encoder(make(1, (32, 32), (8, 8)), weights_of(make(1, (32, 32, 32), (8, 8, 8))), "x", waive=True)
    assert any(line.startswith("random: pos_embed") for line in report.details)
