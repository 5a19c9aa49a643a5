"""Reading crops from prepared arrays."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.data.prepared import POINTS, Prepared, PreparedCase, box_around
from tests.files.prepared import write_and_prepare

law = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two cases of two channels."""
    return write_and_prepare(tmp_path_factory.mktemp("prepared"), 2, (20, 18, 22))


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
@given(st.tuples(*[st.integers(-3, 30)] * 3), st.tuples(*[st.integers(1, 30)] * 3))
def test_a_box_lies_inside_and_as_near_to_its_centre_as_it_can(centre: tuple[int, ...], size: tuple[int, ...]) -> None:
    shape = (20, 18, 22)
    for point, part, whole, box in zip(centre, size, shape, box_around(centre, size, shape), strict=True):
        assert (box.start, box.stop) == min(
            ((start, start + min(part, whole)) for start in range(whole - min(part, whole) + 1)),
            key=lambda ends: abs(ends[0] - (point - part // 2)),
        )


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
