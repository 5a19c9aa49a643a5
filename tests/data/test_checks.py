"""What makes a case unusable, on arrays in memory; the same faults in files are in test_damage.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.data.checks import faults
from mae_bench.interfaces import RawCase, RawImage
from mae_bench.task import Region, Task

SHAPE = (4, 5, 6)
CASE = RawCase("a", "a", (Path("imagesTr/a.nii.gz"),), Path("labelsTr/a.nii.gz"))
TASK = Task(
    kind="segmentation",
    channels=("FLAIR", "T1"),
    labels={1: "edema", 4: "core"},
    regions=(Region(name="edema", labels=(1,), paint=1),),
)


def raw(image: Any = None, label: Any = None, label_affine: Any = None) -> RawImage:
    image = np.arange(2 * 120).reshape(2, *SHAPE) if image is None else image
    return RawImage(image, label, np.eye(4), np.eye(4) if label_affine is None else label_affine, "")


def with_value(value: float, dtype: str = "float32") -> np.ndarray:
    array = np.arange(2 * 120).reshape(2, *SHAPE).astype(dtype)
    array[1, 1, 2, 3] = value
    return array


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"])
@pytest.mark.parametrize("label", [None, "uint8", "int16", "float32", "float64", "int64", ">i2"])
def test_a_good_case_has_no_faults(dtype: str, label: str | None) -> None:
    values = np.resize([0, 1, 4], SHAPE)
    assert faults(raw(with_value(3, dtype), None if label is None else values.astype(label)), CASE, TASK) == []


def test_a_label_without_any_value_is_no_fault() -> None:
    """A healthy subject."""
    assert faults(raw(label=np.zeros(SHAPE, np.uint8)), CASE, TASK) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted(value: float) -> None:
    (found,) = faults(raw(with_value(value)), CASE, TASK)
    assert found == "imagesTr/a.nii.gz (channel 1): 1 voxels are NaN or infinite"


@pytest.mark.parametrize("value", [0, 7, -1024])
def test_constant_channels_are_named(value: int) -> None:
    image = with_value(3, "int16")
    image[0] = value
    (found,) = faults(raw(image), CASE, TASK)
    assert found == f"imagesTr/a.nii.gz (channel 0): constant image, every voxel is {value}"


def test_the_file_of_a_channel_is_named_when_each_has_its_own() -> None:
    case = RawCase("a", "a", (Path("a_flair.nii"), Path("a_t1.nii")))
    (found,) = faults(raw(with_value(np.nan)), case, TASK)
    assert found.startswith("a_t1.nii: ")


def test_wrong_number_of_channels() -> None:
    (found,) = faults(raw(np.arange(120.0).reshape(1, *SHAPE)), CASE, TASK)
    assert found == "imagesTr/a.nii.gz: 1 channels, expected 2 (FLAIR, T1)"


def test_labels_beside_the_grid() -> None:
    label = np.zeros(SHAPE, np.uint8)
    assert "shape (3, 5, 6) differs" in faults(raw(label=label[1:]), CASE, TASK)[0]
    assert "affine differs" in faults(raw(label=label, label_affine=np.diag([1, 1, 2.0, 1])), CASE, TASK)[0]
    assert faults(raw(label=label, label_affine=np.eye(4) + 1e-5), CASE, TASK) == []


@pytest.mark.parametrize(
    ("value", "says"), [(0.5, "not whole numbers, for example 0.5"), (np.nan, "NaN"), (np.inf, "NaN")]
)
def test_labels_that_are_not_whole(value: float, says: str) -> None:
    label = np.zeros(SHAPE)
    label[1, 2, 3] = value
    (found,) = faults(raw(label=label), CASE, TASK)
    assert found.startswith("labelsTr/a.nii.gz: ")
    assert says in found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-300, 70000), max_size=4), st.sampled_from(["int32", "float32", "float64", "int64"]))
def test_exactly_the_undeclared_values_are_named(values: list[int], dtype: str) -> None:
    label = np.zeros(SHAPE, dtype)
    label.ravel()[: len(values)] = values
    strange = sorted(set(values) - {0, 1, 4})
    found = faults(raw(label=label), CASE, TASK)
    if strange:
        assert found == [f"labelsTr/a.nii.gz: label values {strange} are not declared (1 edema, 4 core)"]
    else:
        assert found == []
