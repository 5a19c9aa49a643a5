"""The Decathlon layout: what dataset.json declares, and writing it. Damage is in test_damage.py."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mae_bench.data.decathlon import save_nifti, scan, write_description
from mae_bench.errors import InputError
from mae_bench.interfaces import RawCase
from tests.files.decathlon import Case, plain_cases, write_msd


def test_cases_channels_and_labels_are_as_declared(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(3), channels=("A", "B"), labels={2: "two", 1: "one"})
    layout = scan(tmp_path)
    assert layout.root == tmp_path
    assert layout.channels == ("A", "B")
    assert layout.labels == {1: "one", 2: "two"}
    assert layout.problems == {}
    assert layout.cases[1] == RawCase(
        "case_01", "case_01", (Path("imagesTr/case_01.nii.gz"),), Path("labelsTr/case_01.nii.gz")
    )
    assert [case.id for case in layout.cases] == ["case_00", "case_01", "case_02"]


def test_channels_are_ordered_by_number_not_by_text(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(1))
    path = tmp_path / "dataset.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"modality": {str(number): f"c{number}" for number in (10, 2, 0, 1)}}))
    assert scan(tmp_path).channels == ("c0", "c1", "c2", "c10")


def test_the_order_of_the_list_is_kept(tmp_path: Path) -> None:
    """The published folds depend on it."""
    write_msd(tmp_path, [Case("z"), Case("a"), Case("m")])
    assert [case.id for case in scan(tmp_path).cases] == ["z", "a", "m"]


def test_files_that_are_not_listed_are_left_alone(tmp_path: Path) -> None:
    """The official archives carry ._ files of another operating system."""
    write_msd(tmp_path, plain_cases(1))
    (tmp_path / "imagesTr" / "._case_00.nii.gz").write_bytes(b"no image")
    (tmp_path / "imagesTs").mkdir()
    assert [case.id for case in scan(tmp_path).cases] == ["case_00"]


def test_the_same_name_in_two_folders_is_a_duplicate(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(1))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "case_00.nii").write_bytes((tmp_path / "imagesTr/case_00.nii.gz").read_bytes())
    path = tmp_path / "dataset.json"
    found = json.loads(path.read_text())
    found["training"].append({"image": "more/case_00.nii", "label": "labelsTr/case_00.nii.gz"})
    path.write_text(json.dumps(found))
    layout = scan(tmp_path)
    assert [case.id for case in layout.cases] == ["case_00"]
    assert "case case_00 is listed twice" in next(iter(layout.problems.values()))


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset.json: missing") as caught:
        scan(tmp_path)
    assert "--data" in caught.value.hint


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_saved_files_are_read_by_nibabel_and_have_the_same_bytes_every_time(
    tmp_path: Path, name: str, dtype: str
) -> None:
    array = np.random.default_rng(0).integers(0, 200, (4, 5, 6, 2)).astype(dtype)
    affine = np.array([[0, 0, -2.0, 10], [1.5, 0, 0, -20], [0, 3.0, 0, 30], [0, 0, 0, 1]])
    save_nifti(tmp_path / name, array, affine)
    found = nib.load(tmp_path / name)
    assert found.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(found.dataobj), array)
    np.testing.assert_allclose(found.affine, affine)
    assert found.header.get_xyzt_units()[0] == "mm"
    first = (tmp_path / name).read_bytes()
    save_nifti(tmp_path / name, array, affine)
    assert (tmp_path / name).read_bytes() == first
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_written_description_is_read_back(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for folder in ("imagesTr", "labelsTr"):
        for case in ("a", "b"):
            save_nifti(tmp_path / folder / f"{case}.nii.gz", array, np.eye(4))
    write_description(tmp_path, "FAKE", ("T1", "T2"), {1: "one", 3: "three"}, ["a", "b"])
    layout = scan(tmp_path)
    assert (layout.channels, layout.labels) == (("T1", "T2"), {1: "one", 3: "three"})
    assert [case.id for case in layout.cases] == ["a", "b"]
    assert layout.problems == {}
    official = json.loads((tmp_path / "dataset.json").read_text())
    assert official["labels"]["0"] == "background"
    assert official["numTraining"] == 2
