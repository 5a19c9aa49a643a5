"""Places lie in the mask and patches in the image, as images that encode their own coordinates tell."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from mae_bench_plugins.pretraining.lsae.patches import cut_patches, draw_places, inside


def coordinates(batch, height, width):
    """Images (B, 3, H, W) of row, column (of pixel centres) and the image's number."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    numbers = torch.arange(float(batch))[:, None, None].expand(-1, height, width)
    return torch.stack([rows.expand(batch, -1, -1), columns.expand(batch, -1, -1), numbers], dim=1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.001, 1), size=st.tuples(st.integers(32, 80), st.integers(32, 80)))
def test_places_lie_in_the_region(seed, share, size):
    torch.manual_seed(seed)
    region = torch.rand(3, *size) < share
    region[0, 5, 7] = True  # never empty
    region[1:] |= ~region[1:].flatten(1).any(dim=1)[:, None, None]
    places = draw_places(region, 16)
    assert places.shape == (3, 16)
    assert region.flatten(1).gather(1, places).all()


def test_places_are_uniform():
    """Each of the region's places has the same chance, the first and the last included."""
    torch.manual_seed(0)
    region = torch.zeros(1, 6, 6, dtype=torch.bool)
    region[0, 0, 0] = region[0, 2, 3] = region[0, 5, 5] = region[0, 1, 1] = True
    counts = torch.bincount(draw_places(region, 40_000)[0], minlength=36)[region.flatten()]
    assert counts.sum() == 40_000
    assert ((counts - 10_000).abs() < 5 * math.sqrt(40_000 * 0.25 * 0.75)).all()


def test_an_empty_region_is_everywhere():
    """Nothing outside the lungs: places come from the whole image."""
    torch.manual_seed(0)
    assert len(draw_places(torch.zeros(1, 4, 4, dtype=torch.bool), 500).unique()) == 16


def test_an_empty_mask_is_the_central_half():
    """Image by image: beside one with a mask, and where no image has one."""
    images = torch.zeros(2, 1, 32, 48)
    masks = torch.zeros(2, 32, 48, dtype=torch.uint8)
    masks[1, 3:5, 40:47] = 7
    found = inside(masks, images)
    assert torch.equal(found[1], masks[1] > 0)
    rows, columns = found[0].nonzero().unbind(dim=1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 23, 12, 35)
    assert found[0].sum() == 16 * 24
    assert torch.equal(inside(None, images), found[:1].expand(2, -1, -1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(2, 6), width=st.integers(2, 6), empty=st.booleans())
def test_patches_are_squares_around_their_places(seed, height, width, empty):
    """Centre in the mask, right image, sides and turn within bounds, nothing from beyond the border."""
    height, width = 16 * height, 16 * width
    torch.manual_seed(seed)
    images = coordinates(2, height, width)
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    if not empty:  # at least an eighth of the shorter side from the border: no patch has to be moved
        margin = min(height, width) // 8
        masks[:, margin + 1 : height - margin - 1, margin + 1 : width - margin - 1] = 1
    region = inside(masks, images)
    places = draw_places(region, 5)
    patches = cut_patches(images, places, 16)
    assert patches.shape == (2, 5, 3, 16, 16)
    torch.testing.assert_close(patches[:, :, 2], torch.arange(2.0)[:, None, None, None].expand(2, 5, 16, 16))
    centre = patches[:, :, :2].mean(dim=(3, 4))
    torch.testing.assert_close(centre[..., 0], places // width + 0.5, atol=1e-3, rtol=0)
    torch.testing.assert_close(centre[..., 1], places % width + 0.5, atol=1e-3, rtol=0)
    across = patches[:, :, :2, 0, -1] - patches[:, :, :2, 0, 0]
    down = patches[:, :, :2, -1, 0] - patches[:, :, :2, 0, 0]
    length = across.norm(dim=-1) * 16 / 15
    torch.testing.assert_close(down.norm(dim=-1) * 16 / 15, length, atol=1e-3, rtol=0)
    assert ((across * down).sum(dim=-1).abs() < 1e-2).all()
    angle = torch.atan2(across[..., 0], across[..., 1])
    assert (angle.abs() <= math.radians(60) + 1e-3).all()
    # The square before it is turned: what it is the largest turned square of.
    side = length * (angle.cos() + angle.sin().abs()) / min(height, width)
    assert ((side > 1 / 16 - 1e-3) & (side < 1 / 4 + 1e-3)).all()


def test_patches_at_the_border_move_inwards():
    """No corner lies beyond the image, so there is no border to show."""
    torch.manual_seed(0)
    images = coordinates(1, 48, 32)
    region = torch.zeros(1, 48, 32, dtype=torch.bool)
    region[0, [0, 0, -1, -1], [0, -1, 0, -1]] = True
    places = draw_places(region, 200)
    patches = cut_patches(images, places, 16)[0]
    # From its inner half, where nothing can be cut off, a patch's corners are known.
    middle = patches[:, :2, 4:12, 4:12].mean(dim=(2, 3))
    across = (patches[:, :2, 4, 11] - patches[:, :2, 4, 4]) * 16 / 7
    down = (patches[:, :2, 11, 4] - patches[:, :2, 4, 4]) * 16 / 7
    reach = (across.abs() + down.abs()) / 2
    assert (middle - reach).min() > -1e-3
    assert (middle + reach - torch.tensor([48, 32])).max() < 1e-3
    # Each patch still holds the neighbourhood of its place: within 1/4 of the shorter side.
    place = torch.stack([places[0] // 32, places[0] % 32], dim=1) + 0.5
    assert ((middle - place).abs() <= 32 / 8 + 1e-3).all()


def test_values_are_linear_interpolation():
    """The same grid read by scipy."""
    torch.manual_seed(3)
    image = torch.randn(1, 1, 32, 32)
    places = torch.tensor([[16 * 32 + 15, 12 * 32 + 20]])
    torch.manual_seed(4)
    values = cut_patches(image, places, 8)[0, :, 0]
    torch.manual_seed(4)
    at = cut_patches(coordinates(1, 32, 32), places, 8)[0, :, :2]
    for patch, where in zip(values, at, strict=True):
        expected = map_coordinates(image[0, 0].numpy(), where.numpy() - 0.5, order=1)
        np.testing.assert_allclose(patch, expected, atol=1e-4)


def test_gradients_reach_the_image():
    image = torch.randn(2, 1, 32, 32, requires_grad=True)
    cut_patches(image, draw_places(torch.ones(2, 32, 32, dtype=torch.bool), 4), 16).sum().backward()
    assert image.grad is not None
    assert image.grad.sum().item() == pytest.approx(2 * 4 * 16 * 16, rel=1e-4)
