"""Random resized crops, rotations: against torchvision, scipy and closed forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.data.augment import RATIO, Augmentation, draw_box, draw_flips, draw_gain, resize, rotate

law = settings(max_examples=60, deadline=None)


@law
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(4, 80), min_size=2, max_size=3).map(tuple),
    st.floats(0.01, 1).flatmap(lambda low: st.tuples(st.just(low), st.floats(low, 1))),
)
def test_a_box_lies_inside_and_has_about_its_share(
    seed: int, shape: tuple[int, ...], area: tuple[float, float]
) -> None:
    box = draw_box(shape, area, np.random.default_rng(seed))
    sizes = [part.stop - part.start for part in box]
    assert all(0 <= part.start < part.stop <= whole for part, whole in zip(box, shape, strict=True))
    # A side that would be longer than the image is cut; rounding may add half a voxel, and one voxel is the least.
    assert np.prod([size - 1 for size in sizes]) <= area[1] * np.prod(shape)
    least = [max(0.0, whole * (area[0] / RATIO[1]) ** (1 / len(shape)) * 0.8 - 1) for whole in shape]
    assert all(size >= low for size, low in zip(sizes, least, strict=True))


def test_boxes_are_as_random_as_torchvisions() -> None:
    """Shares and ratios of the sides of a large square image: the same distributions, by their quantiles."""
    transforms = pytest.importorskip("torchvision.transforms")
    rng = np.random.default_rng(0)
    ours = [[part.stop - part.start for part in draw_box((500, 500), (0.1, 0.6), rng)] for _ in range(3000)]
    torch.manual_seed(0)
    image = torch.zeros(1, 500, 500)
    theirs = [transforms.RandomResizedCrop.get_params(image, [0.1, 0.6], list(RATIO))[2:] for _ in range(3000)]
    for of in (lambda sides: sides[0] * sides[1], lambda sides: sides[0] / sides[1]):
        mine, peer = (np.quantile([of(sides) for sides in found], [0.1, 0.5, 0.9]) for found in (ours, theirs))
        np.testing.assert_allclose(mine, peer, rtol=0.05)


@pytest.mark.parametrize("shape", [(9, 12), (5, 6, 7)])
def test_resizing_is_linear_between_pixel_areas(shape: tuple[int, ...]) -> None:
    """As PyTorch's interpolate without aligned corners; labels keep their values."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, *shape)).astype(np.float16)
    target = tuple(2 * size - 3 for size in shape)
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = F.interpolate(torch.from_numpy(image.astype(np.float32))[None], target, mode=mode)[0]
    np.testing.assert_allclose(resize(image, target), expected, atol=1e-5)
    label = rng.integers(0, 4, shape).astype(np.uint8)
    small = resize(label, target)
    assert small.shape == target
    assert small.dtype == np.uint8
    assert set(np.unique(small)) <= set(np.unique(label))
    np.testing.assert_array_equal(resize(label, shape), label)


def test_a_quarter_turn_is_exact() -> None:
    rng = np.random.default_rng(2)
    image, label = rng.normal(size=(2, 8, 8, 5)).astype(np.float32), rng.integers(0, 4, (8, 8, 5)).astype(np.uint8)
    np.testing.assert_allclose(rotate(image, 90, 3), np.rot90(image, 1, (1, 2)), atol=1e-5)
    np.testing.assert_array_equal(rotate(label, 90, 3), np.rot90(label, 1, (0, 1)))


def test_draws_keep_their_limits() -> None:
    rng = np.random.default_rng(3)
    chosen = Augmentation(axes=(0, 2), flip=0.25, intensity=0.2)
    flips = [draw_flips(chosen, rng) for _ in range(2000)]
    assert {axis for drawn in flips for axis in drawn} == {0, 2}
    assert np.mean([0 in drawn for drawn in flips]) == pytest.approx(0.25, abs=0.04)
    gains = np.array([draw_gain(chosen, rng) for _ in range(2000)])
    np.testing.assert_allclose(gains.min(axis=0), [0.8, -0.2], atol=0.01)
    np.testing.assert_allclose(gains.max(axis=0), [1.2, 0.2], atol=0.01)
