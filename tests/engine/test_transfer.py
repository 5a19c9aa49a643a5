"""Weights for an encoder of another size: every parameter accounted for, values against closed forms."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.engine.transfer import Weights, fit_kernel, fit_positions, load_encoder
from mae_bench.errors import InputError
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
    if old > 1 and new > 1 and new % old:
        kernel = kernel[:, :1].expand(5, old, *size)  # copies in turn are uneven then, unless channels agree
    fitted, _ = fit_kernel(kernel, new, target)
    assert fitted.shape == (5, new, *target)
    if all(a == b or a == 1 or b % a == 0 for a, b in zip(size, target, strict=False)):
        torch.testing.assert_close(fitted.flatten(1).sum(1), kernel.flatten(1).sum(1))


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
