"""Orientation and resampling, against nibabel and scipy."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mae_bench.data import geometry

law = settings(max_examples=40, deadline=None)
ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]
sizes = st.integers(1, 7)
shapes = st.tuples(sizes, sizes, sizes)
seeds = st.integers(0, 2**32 - 1)


def oriented(array: np.ndarray, code: str, spacing: tuple[float, float, float] = (1.0, 2.0, 3.0)) -> nib.Nifti1Image:
    """An array in RAS order as nibabel turns it to `code`."""
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code))
    return nib.Nifti1Image(array, np.diag([*spacing, 1.0])).as_reoriented(turn)


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_all_48_orientations_come_to_ras_as_in_nibabel(code: str) -> None:
    array = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    image = oriented(array, code)
    native = np.asarray(image.dataobj)
    orientation = geometry.orientation_of(image.affine)
    assert "".join(nib.aff2axcodes(image.affine)) == code
    expected = np.asarray(nib.as_closest_canonical(image).dataobj)
    np.testing.assert_array_equal(geometry.to_ras(native, orientation), expected)
    np.testing.assert_array_equal(expected, array)
    np.testing.assert_array_equal(geometry.from_ras(array, orientation), native)


@law
@given(st.sampled_from(ORIENTATIONS), shapes, st.integers(0, 2), seeds)
def test_from_ras_undoes_to_ras(code: str, shape: tuple[int, int, int], lead: int, seed: int) -> None:
    """Leading axes (channels) are left alone."""
    array = np.random.default_rng(seed).random((*[2] * lead, *shape))
    orientation = nib.orientations.axcodes2ornt(code)
    there = geometry.to_ras(array, orientation)
    assert there.shape[:lead] == array.shape[:lead]
    np.testing.assert_array_equal(geometry.from_ras(there, orientation), array)
    np.testing.assert_array_equal(geometry.to_ras(geometry.from_ras(array, orientation), orientation), array)


@law
@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.sampled_from(ORIENTATIONS))
def test_oblique_images_go_to_the_closest_axes(angles: list[float], code: str) -> None:
    """A scanner's tilt of up to 20 degrees does not change which way an image is turned."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", np.array(angles) * 0.4, degrees=True).as_matrix()
    array = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code))
    image = nib.Nifti1Image(array, affine).as_reoriented(turn)
    turned = geometry.to_ras(np.asarray(image.dataobj), geometry.orientation_of(image.affine))
    np.testing.assert_array_equal(turned, array)


def test_to_ras_is_a_view() -> None:
    array = np.zeros((2, 3, 4))
    assert np.shares_memory(geometry.to_ras(array, nib.orientations.axcodes2ornt("PIR")), array)


@law
@given(shapes, st.lists(st.floats(0.2, 3.0), min_size=3, max_size=3), st.booleans(), seeds)
def test_linear_resampling_is_that_of_scipy(
    shape: tuple[int, int, int], ratio: list[float], channels: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    array = rng.random((2, *shape) if channels else shape).astype(np.float32)
    target = tuple(geometry.resampled_size(size, 1.0, step) for size, step in zip(shape, ratio, strict=True))
    index = np.stack(
        np.meshgrid(*(np.arange(size) * step for size, step in zip(target, ratio, strict=True)), indexing="ij")
    )
    parts = array if channels else array[None]
    # A ratio within a thousandth of 1 is rounding in a header, and the array is left as it is.
    expected = np.stack([ndimage.map_coordinates(part, index, order=1, mode="nearest") for part in parts])
    found = geometry.resample(array, tuple(ratio), target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected if channels else expected[0], atol=1e-2)
    if all(abs(step - 1) > 1e-3 for step in ratio):
        np.testing.assert_allclose(found, expected if channels else expected[0], atol=1e-5)


@law
@given(shapes, st.lists(st.sampled_from([1, 2, 3, 4]), min_size=3, max_size=3), seeds)
def test_a_finer_grid_that_holds_the_native_points_loses_nothing(
    shape: tuple[int, int, int], factor: list[int], seed: int
) -> None:
    """2 mm to 1 mm and back: images to rounding, labels exactly, and both agree with plain striding."""
    rng = np.random.default_rng(seed)
    image, label = rng.random(shape).astype(np.float32), rng.integers(0, 9, shape).astype(np.uint8)
    there = tuple(1 / part for part in factor)
    fine = tuple(geometry.resampled_size(size, part, 1.0) for size, part in zip(shape, factor, strict=True))
    assert fine == tuple((size - 1) * part + 1 for size, part in zip(shape, factor, strict=True))
    finer, finer_label = geometry.resample(image, there, fine), geometry.resample(label, there, fine, nearest=True)
    stride = tuple(slice(None, None, part) for part in factor)
    np.testing.assert_allclose(finer[stride], image, atol=1e-6)
    np.testing.assert_array_equal(finer_label[stride], label)
    back = tuple(float(part) for part in factor)
    np.testing.assert_allclose(geometry.resample(finer, back, shape), image, atol=1e-6)
    np.testing.assert_array_equal(geometry.resample(finer_label, back, shape, nearest=True), label)


@law
@given(shapes, st.lists(st.floats(0.1, 0.99), min_size=3, max_size=3), seeds)
def test_labels_survive_any_finer_grid(shape: tuple[int, int, int], ratio: list[float], seed: int) -> None:
    """The voxel of a finer grid that is nearest to a native centre has that native voxel as its own nearest."""
    label = np.random.default_rng(seed).integers(0, 9, shape).astype(np.uint8)
    fine = tuple(geometry.resampled_size(size, 1.0, step) for size, step in zip(shape, ratio, strict=True))
    finer = geometry.resample(label, tuple(ratio), fine, nearest=True)
    back = geometry.resample(finer, tuple(1 / step for step in ratio), shape, nearest=True)
    np.testing.assert_array_equal(back, label)


@law
@given(st.integers(2, 12), st.sampled_from([(1.5, 1.0), (2.0, 1.0), (3.0, 1.5), (3.0, 1.0), (2.5, 1.25)]), seeds)
def test_the_larger_share_of_a_prepared_label_is_the_native_one(
    size: int, spacings: tuple[float, float], seed: int
) -> None:
    """One-hot labels on the finer grid, brought back linearly, win where they should: as a perfect model's would."""
    native, own = spacings
    label = np.random.default_rng(seed).integers(0, 4, (size, size, 3)).astype(np.uint8)
    ratio = (own / native,) * 3
    fine = tuple(geometry.resampled_size(length, native, own) for length in label.shape)
    finer = geometry.resample(label, ratio, fine, nearest=True)
    hot = (finer == np.arange(4).reshape(4, 1, 1, 1)).astype(np.float32)
    back = geometry.resample(hot, (native / own,) * 3, label.shape)
    np.testing.assert_array_equal(back.argmax(axis=0), label)


@law
@given(st.integers(1, 300), st.floats(0.3, 5), st.floats(0.3, 5))
def test_resampled_size_is_the_smallest_that_covers_all_centres(size: int, spacing: float, target: float) -> None:
    count = geometry.resampled_size(size, spacing, target)
    length = (size - 1) * spacing
    assert (count - 1) * target >= length - 1.01e-3 * target
    assert count == 1 or (count - 2) * target < length


@law
@given(shapes, st.floats(0, 1), seeds)
def test_bounding_box_is_that_of_scipy(shape: tuple[int, int, int], share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    box = geometry.bounding_box(mask)
    found = ndimage.find_objects(mask.astype(int))
    assert box == (found[0] if found else tuple(slice(0, size) for size in shape))
