"""Dice and HD95 against MONAI, distance transforms, closed forms, and the table of empty cases."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage

from mae_bench.metrics.segmentation import dice, hd95

# MONAI 1.5 and later warn of an argument that they pass themselves.
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

Mask = NDArray[np.bool_]
Make = Callable[[int, tuple[int, ...]], tuple[Mask, Mask]]
SPACINGS = [(1.0, 1.0, 1.0), (0.5, 1.5, 4.0)]


def blobs(seed: int, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Two overlapping ragged masks that reach the border of the image."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.5, mode="constant")
    other = field + 0.3 * ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    return field > 0.05, other > 0.07


def inner(seed: int, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """The same, away from the border."""
    frame = np.zeros(shape, bool)
    frame[tuple(slice(3, -3) for _ in shape)] = True
    first, second = blobs(seed, shape)
    return first & frame, second & frame


def both(masks: tuple[Mask, Mask]) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (torch.from_numpy(mask)[None, None] for mask in masks)
    return first, second


def surface(mask: Mask) -> Mask:
    """Voxels with a neighbour outside; outside of the image is outside."""
    return mask & ~ndimage.binary_erosion(mask)


def by_transforms(first: Mask, second: Mask, spacing: tuple[float, ...]) -> float:
    """The larger of the two 95th percentiles of surface distances."""
    edges = surface(first), surface(second)
    fields = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return max(float(np.percentile(fields[1][edges[0]], 95)), float(np.percentile(fields[0][edges[1]], 95)))


@pytest.mark.parametrize("make", [blobs, inner])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(14, 17, 12), (23, 31)])
def test_dice_is_monais(make: Make, seed: int, shape: tuple[int, ...]) -> None:
    masks = make(seed, shape)
    expected = compute_dice(*both(masks), include_background=True)
    assert dice(*masks) == pytest.approx(float(expected), abs=1e-6)
    assert 0 < dice(*masks) < 1


@pytest.mark.parametrize("make", [blobs, inner])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing", SPACINGS)
def test_hd95_is_monais_on_the_whole_image(make: Make, seed: int, spacing: tuple[float, ...]) -> None:
    """Ours is computed in a box around both masks, which must not show."""
    masks = make(seed, (14, 17, 12))
    first, second = both(masks)
    expected = compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=list(spacing))
    assert hd95(*masks, spacing) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("make", [blobs, inner])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("shape", "spacing"), [((14, 17, 12), SPACINGS[0]), ((14, 17, 12), SPACINGS[1]), ((23, 31), (0.7, 2.0))]
)
def test_hd95_is_that_of_distance_transforms(
    make: Make, seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    masks = make(seed, shape)
    assert hd95(*masks, spacing) == pytest.approx(by_transforms(*masks, spacing), rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("start", [0, 2])
def test_two_planes_are_their_distance_apart(axis: int, start: int) -> None:
    """That is k times the spacing of their axis, whether or not one lies on the border."""
    spacing = (0.5, 1.5, 4.0)
    for k in (1, 3, 5):
        first, second = np.zeros((2, 9, 9, 9), bool)
        np.moveaxis(first, axis, 0)[start] = True
        np.moveaxis(second, axis, 0)[start + k] = True
        assert hd95(first, second, spacing) == pytest.approx(k * spacing[axis])


def test_one_voxel_far_off_is_forgiven_and_one_in_ten_is_not() -> None:
    truth = np.zeros((40, 6), bool)
    truth[:, 0] = True
    near, far = truth.copy(), truth.copy()
    near[0, 5] = True
    far[:4, 5] = True
    assert hd95(near, truth, (1, 1)) == 0
    assert hd95(far, truth, (1, 1)) == 5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_symmetries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, 5, 6, 4)) < rng.uniform(0.05, 0.6)
    first[0, 0, 0] = second[2, 3, 1] = True
    spacing = (1.0, 2.0, 0.5)
    assert dice(first, second) == dice(second, first)
    assert hd95(first, second, spacing) == pytest.approx(hd95(second, first, spacing))
    assert (dice(first, first), hd95(first, first, spacing)) == (1, 0)
    mirrored = [np.flip(mask, 1) for mask in (first, second)]
    assert hd95(*mirrored, spacing) == pytest.approx(hd95(first, second, spacing))
    doubled = hd95(first, second, [2 * size for size in spacing])
    assert doubled == pytest.approx(2 * hd95(first, second, spacing))
    assert hd95(first, second, spacing) <= np.linalg.norm(np.multiply(first.shape, spacing))


def test_masks_are_left_as_they_were() -> None:
    masks = blobs(0, (8, 9, 10))
    copies = [mask.copy() for mask in masks]
    dice(*masks)
    hd95(*masks, (1, 1, 1))
    assert all(np.array_equal(mask, copy) for mask, copy in zip(masks, copies, strict=True))


NAN = float("nan")
DIAGONAL = float(np.sqrt((6 * 0.5) ** 2 + (8 * 1.5) ** 2 + (4 * 4.0) ** 2))
TABLE = [
    ("empty", "empty", "score", 1.0, 0.0),
    ("empty", "some", "score", 0.0, DIAGONAL),
    ("some", "empty", "score", 0.0, DIAGONAL),
    ("empty", "empty", "ignore", NAN, NAN),
    ("empty", "some", "ignore", NAN, NAN),
    ("some", "empty", "ignore", 0.0, NAN),
]


@pytest.mark.parametrize(("truth", "prediction", "rule", "overlap", "distance"), TABLE)
def test_empty_cases(
    truth: str, prediction: str, rule: Literal["score", "ignore"], overlap: float, distance: float
) -> None:
    masks = {"empty": np.zeros((6, 8, 4), bool), "some": np.zeros((6, 8, 4), bool)}
    masks["some"][2:4, 3, 1] = True
    found = dice(masks[prediction], masks[truth], rule), hd95(masks[prediction], masks[truth], (0.5, 1.5, 4.0), rule)
    assert found == pytest.approx((overlap, distance), nan_ok=True)


@pytest.mark.parametrize("rule", ["score", "ignore"])
def test_the_rule_touches_only_empty_cases(rule: Literal["score", "ignore"]) -> None:
    masks = inner(4, (14, 17, 12))
    assert dice(*masks, rule) == dice(*masks)
    assert hd95(*masks, (1, 1, 1), rule) == hd95(*masks, (1, 1, 1))


def test_ignore_is_what_monais_defaults_amount_to() -> None:
    empty, some = torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)
    some[..., 1:3, 1:3, 1] = 1
    for prediction, truth in ((empty, some), (some, empty), (empty, empty)):
        expected = float(compute_dice(prediction, truth, ignore_empty=True))
        found = dice(prediction[0, 0].bool().numpy(), truth[0, 0].bool().numpy(), "ignore")
        np.testing.assert_equal(found, expected)


def test_missing_a_region_is_never_better_than_any_answer() -> None:
    first, second = np.zeros((2, 5, 6, 7), bool)
    first[0, 0, 0] = second[-1, -1, -1] = True
    spacing = (1.0, 2.0, 3.0)
    assert hd95(first, second, spacing) < hd95(np.zeros_like(first), second, spacing)
