"""Reading crops from prepared arrays."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.data.prepare import prepare
from mae_bench.data.prepared import POINTS, Prepared, PreparedCase
from mae_bench.store import Store
from mae_bench_plugins.datasets.msd import MSD, MSDOptions
from tests.files.decathlon import plain_cases, write_msd

law = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two cases of two channels."""
    folder = tmp_path_factory.mktemp("prepared")
    write_msd(folder / "task", plain_cases(2, shape=(20, 18, 22)), channels=("A", "B"))
    dataset, options = MSD(), MSDOptions()
    layout = dataset.scan(options, folder / "task")
    rules = dataset.protocols(options, layout)["clean-v1"]()
    task = dataset.task(options, layout, rules)
    return prepare(dataset, options, folder / "task", layout, task, rules.preprocessing, Store(folder / "store"))


@pytest.fixture(scope="module")
def case(prepared: Prepared) -> PreparedCase:
    return prepared.case("case_00")


def test_arrays_are_memory_mapped(case: PreparedCase) -> None:
    image, label = case.image(), case.label()
    assert isinstance(image, np.memmap)
    assert isinstance(label, np.memmap)
    assert (image.dtype, label.dtype) == (np.float16, np.uint8)
    assert image.shape == (2, *case.facts.shape)
    assert label.shape == case.facts.shape
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0


@law
@given(
    st.tuples(*[st.integers(-3, 30)] * 3),
    st.tuples(*[st.integers(1, 30)] * 3),
    st.booleans(),
)
def test_a_crop_is_a_slice_of_the_padded_array(
    case: PreparedCase, centre: tuple[int, ...], roi: tuple[int, ...], with_label: bool
) -> None:
    """The same content as slicing the whole array, zeros behind its end where it is smaller than the roi."""
    crop = case.crop(centre, roi, with_label=with_label)
    missing = [(0, max(0, size - whole)) for size, whole in zip(roi, case.facts.shape, strict=True)]
    image = np.pad(np.asarray(case.image()), [(0, 0), *missing])
    label = np.pad(np.asarray(case.label()), missing)
    box = []
    for point, size, whole in zip(centre, roi, image.shape[1:], strict=True):
        start = int(np.clip(point - size // 2, 0, whole - size))
        box.append(slice(start, start + size))
    np.testing.assert_array_equal(crop.image, image[(slice(None), *box)])
    assert crop.image.dtype == np.float32
    assert crop.image.shape == (2, *roi)
    if with_label:
        assert crop.label is not None
        np.testing.assert_array_equal(crop.label, label[tuple(box)])
        assert crop.label.dtype == np.uint8
    else:
        assert crop.label is None


def test_changing_a_crop_does_not_change_the_file(case: PreparedCase) -> None:
    before = np.asarray(case.image()).copy()
    case.crop((5, 5, 5), (8, 8, 8), with_label=True).image[:] = 99
    np.testing.assert_array_equal(case.image(), before)


@pytest.mark.parametrize("kind", ["foreground", "1", "2"])
def test_points_are_voxels_of_their_kind(case: PreparedCase, kind: str) -> None:
    rng = np.random.default_rng(0)
    points = [case.point(kind, rng) for _ in range(50)]
    for point in points:
        assert point is not None
        if kind == "foreground":
            assert np.asarray(case.image())[(slice(None), *point)].any()
        else:
            assert case.label()[point] == int(kind)
    assert len(set(points)) > 1
    assert case.point("77", rng) is None


def test_few_voxels_are_all_remembered(case: PreparedCase) -> None:
    """Below the limit every voxel of a label can be drawn; above it, no more than the limit."""
    points = np.load(case.folder / "points.npy")
    for value in (1, 2):
        first, last = case.facts.points[str(value)]
        expected = np.argwhere(np.asarray(case.label()) == value)
        assert last - first == len(expected) <= POINTS
        np.testing.assert_array_equal(points[first:last], expected)
    first, last = case.facts.points["foreground"]
    assert last - first == min(POINTS, int((np.asarray(case.image()) != 0).any(axis=0).sum()))


def test_facts_come_without_opening_arrays(prepared: Prepared, tmp_path: Path) -> None:
    assert set(prepared.facts) == {"case_00", "case_01"}
    assert prepared.problems == {}
    facts = prepared.facts["case_00"]
    assert facts.labelled
    assert facts.native_shape == (20, 18, 22)
    assert facts.native_spacing == (1.0, 1.0, 1.0)
    assert all(
        begin + size <= whole for begin, size, whole in zip(facts.start, facts.cropped, (20, 18, 22), strict=True)
    )
    elsewhere = Prepared(
        tmp_path / "nowhere", {"fingerprint": "", "problems": {}, "cases": [facts.model_dump(mode="json")]}
    )
    assert elsewhere.case("case_00").facts == facts
