"""Brain tumours in three layouts, and their stand-in."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mae_bench.data.source import open_data
from mae_bench.errors import InputError
from mae_bench.interfaces import Layout
from mae_bench.store import Store
from mae_bench_plugins.datasets.brats import CHANNELS, BraTS, BraTSOptions
from mae_bench_plugins.datasets.brats.layouts import parts
from tests.files.decathlon import (
    BRATS_2021,
    BRATS_2023,
    BRATS_CHANNELS,
    Case,
    Truth,
    plain_cases,
    write_brats_folders,
    write_msd,
)

OPTIONS = BraTSOptions(subjects=6, demo_spacing=6)
MSD_LABELS = {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
MSD_CHANNELS = ("FLAIR", "T1w", "t1gd", "T2w")  # as Task01's dataset.json spells them


def write_2021(root: Path, count: int = 4, extension: str = ".nii.gz") -> dict[str, Truth]:
    cases = [Case(f"BraTS2021_{number:05d}", "LPS", seed=number) for number in range(count)]
    return write_brats_folders(root, cases, BRATS_2021, (1, 2, 4), extension)


def write_2023(root: Path, names: list[str]) -> dict[str, Truth]:
    cases = [Case(name, "LPS", seed=number) for number, name in enumerate(names)]
    return write_brats_folders(root, cases, BRATS_2023, (1, 2, 3))


def test_channels_are_in_the_same_order_in_all_layouts() -> None:
    assert CHANNELS == BRATS_CHANNELS


@pytest.mark.parametrize("extension", [".nii.gz", ".nii"])
def test_brats_2021(extension: str, tmp_path: Path) -> None:
    truths = write_2021(tmp_path, extension=extension)
    brats = BraTS()
    layout = brats.scan(OPTIONS, tmp_path)
    assert [case.id for case in layout.cases] == sorted(truths)
    assert [case.subject for case in layout.cases] == sorted(truths)
    assert layout.channels == CHANNELS
    assert layout.labels.keys() == {1, 2, 4}
    assert layout.problems == {}
    for case in layout.cases:
        raw = brats.read(case, tmp_path)
        np.testing.assert_array_equal(raw.image[:, ::-1, ::-1], truths[case.id].image)
        assert raw.label is not None
        np.testing.assert_array_equal(raw.label[::-1, ::-1], truths[case.id].label)


def test_brats_2023_time_points_are_one_subject(tmp_path: Path) -> None:
    names = ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", *(f"BraTS-GLI-{number:05d}-000" for number in range(2, 9))]
    truths = write_2023(tmp_path / "data", names)
    brats = BraTS()
    layout = brats.scan(OPTIONS, tmp_path / "data")
    assert {case.id: case.subject for case in layout.cases} == {name: name[:-4] for name in names}
    assert layout.labels.keys() == {1, 2, 3}
    raw = brats.read(layout.cases[1], tmp_path / "data")
    np.testing.assert_array_equal(raw.image[:, ::-1, ::-1], truths[names[1]].image)

    data = open_data(brats, OPTIONS, Store(tmp_path / "store"), data=tmp_path / "data", demo=False, protocol=None)
    sides = [set(data.split.train), set(data.split.val), set(data.split.test)]
    assert sum(len({names[0], names[1]} & side) == 2 for side in sides) == 1
    assert set.union(*sides) == set(names)


def test_msd_task01(tmp_path: Path) -> None:
    truths = write_msd(tmp_path, plain_cases(3), channels=MSD_CHANNELS, labels=MSD_LABELS)
    brats = BraTS()
    layout = brats.scan(OPTIONS, tmp_path)
    assert layout.channels == CHANNELS
    assert layout.labels == MSD_LABELS
    for case in layout.cases:
        np.testing.assert_array_equal(brats.read(case, tmp_path).image, truths[case.id].image)


def regions(root: Path, protocol: str) -> dict[str, tuple[set[int], int]]:
    brats = BraTS()
    layout = brats.scan(OPTIONS, root)
    task = brats.task(OPTIONS, layout, brats.protocols(OPTIONS, layout)[protocol]())
    assert task.overlapping
    assert task.outputs == 3
    return {region.name: (set(region.labels), region.paint) for region in task.regions}


def test_regions_follow_the_numbers_of_each_layout(tmp_path: Path) -> None:
    """MSD: 1 edema, 2 non-enhancing, 3 enhancing. BraTS: 1 necrotic, 2 edema, 4 (2021) or 3 (2023) enhancing."""
    write_msd(tmp_path / "msd", plain_cases(1), channels=MSD_CHANNELS, labels=MSD_LABELS)
    write_2021(tmp_path / "2021", 1)
    write_2023(tmp_path / "2023", ["BraTS-GLI-00000-000"])
    clean = {name: regions(tmp_path / name, "clean-v1") for name in ("msd", "2021", "2023")}
    assert clean["msd"] == {"WT": ({1, 2, 3}, 1), "TC": ({2, 3}, 2), "ET": ({3}, 3)}
    assert clean["2021"] == {"WT": ({1, 2, 4}, 2), "TC": ({1, 4}, 1), "ET": ({4}, 4)}
    assert clean["2023"] == {"WT": ({1, 2, 3}, 2), "TC": ({1, 3}, 1), "ET": ({3}, 3)}
    assert regions(tmp_path / "msd", "paper") == {"WT": ({1, 2, 3}, 1), "TC": ({2, 3}, 3), "ET": ({2}, 2)}


@pytest.mark.parametrize("protocol", ["clean-v1", "paper"])
def test_painting_the_true_regions_in_order_gives_the_label_back(protocol: str, tmp_path: Path) -> None:
    truth = write_msd(tmp_path, plain_cases(1), channels=MSD_CHANNELS, labels=MSD_LABELS)["case_00"]
    painted = np.zeros_like(truth.label)
    for labels, paint in regions(tmp_path, protocol).values():
        painted[np.isin(truth.label, list(labels))] = paint
    np.testing.assert_array_equal(painted, truth.label)


@pytest.mark.parametrize(
    "labels",
    [
        {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"},
        {3: "Enhancing Tumor", 1: "Necrotic and non-enhancing tumor core", 2: "Peritumoral Edema"},
        {2: "peritumoural oedema", 1: "non enhancing", 4: "GD-enhancing tumor"},
    ],
)
def test_parts_are_found_by_name(labels: dict[int, str], tmp_path: Path) -> None:
    edema, core, enhancing = parts(Layout(tmp_path, (), CHANNELS, labels))
    assert "dema" in labels[edema].lower()
    assert "non" in labels[core].lower()
    assert "non" not in labels[enhancing].lower()


def test_another_task_of_the_decathlon_is_refused(tmp_path: Path) -> None:
    write_msd(tmp_path / "one", plain_cases(1))
    with pytest.raises(InputError, match=r"one/dataset.json: 1 channels \['MRI'\]") as caught:
        BraTS().scan(OPTIONS, tmp_path / "one")
    assert "--dataset msd" in caught.value.hint
    write_msd(tmp_path / "four", plain_cases(1), channels=MSD_CHANNELS)
    with pytest.raises(InputError, match=r"dataset.json: labels .*inner.* do not name edema") as caught:
        BraTS().scan(OPTIONS, tmp_path / "four")
    assert "--dataset msd" in caught.value.hint


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(InputError, match=r"neither dataset.json \(MSD Task01\) nor folders named BraTS2021_\*"):
        BraTS().scan(OPTIONS, tmp_path)
    with pytest.raises(InputError, match="gone: no such folder"):
        BraTS().scan(OPTIONS, tmp_path / "gone")


@pytest.mark.parametrize("suffix", BRATS_2021)
def test_a_missing_channel_is_named_and_can_be_skipped(suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_2021(root, 5)
    (root / "BraTS2021_00002" / f"BraTS2021_00002{suffix}.nii.gz").unlink()
    with pytest.raises(InputError) as caught:
        open_data(BraTS(), OPTIONS, Store(tmp_path / "store"), data=root, demo=False, protocol=None)
    (line,) = caught.value.problems
    assert f"BraTS2021_00002{suffix}.nii.gz" in line
    assert "missing" in line
    data = open_data(BraTS(), OPTIONS, Store(tmp_path / "store"), data=root, demo=False, protocol=None, skip_bad=True)
    assert len(data.prepared.facts) == 4
    assert list(data.prepared.problems) == ["BraTS2021_00002"]


def test_a_damaged_channel_is_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_2021(root, 3)
    file = root / "BraTS2021_00001" / "BraTS2021_00001_t1ce.nii.gz"
    found = nib.load(file)
    nib.save(nib.Nifti1Image(np.full(found.shape, 3, np.int16), found.affine), file)
    with pytest.raises(InputError) as caught:
        open_data(BraTS(), OPTIONS, Store(tmp_path / "store"), data=root, demo=False, protocol=None)
    (line,) = caught.value.problems
    assert "BraTS2021_00001_t1ce.nii.gz: constant image" in line


def test_files_beside_the_case_folders_are_left_alone(tmp_path: Path) -> None:
    write_2021(tmp_path, 2)
    (tmp_path / "README.txt").write_text("terms")
    (tmp_path / "BraTS2021_Training_Data.tar").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    assert len(BraTS().scan(OPTIONS, tmp_path).cases) == 2


# --- protocols --------------------------------------------------------------------------------------------------------


def test_the_paper_protocol_repeats_the_paper(tmp_path: Path) -> None:
    write_msd(tmp_path / "data", plain_cases(10), channels=MSD_CHANNELS, labels=MSD_LABELS)
    data = open_data(BraTS(), OPTIONS, Store(tmp_path / "store"), data=tmp_path / "data", demo=False, protocol="paper")
    assert (data.protocol.selection, data.protocol.scored_on, data.protocol.distance_unit) == (
        "test",
        "prepared",
        "voxel",
    )
    assert data.split.val == data.split.test
    assert len(data.split.test) == 2
    assert not set(data.split.train) & set(data.split.test)


def test_real_data_are_prepared_at_one_millimetre(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(1, spacing=(2.0, 2.0, 2.0)), channels=MSD_CHANNELS, labels=MSD_LABELS)
    brats = BraTS()
    layout = brats.scan(OPTIONS, tmp_path)
    for protocol in brats.protocols(OPTIONS, layout).values():
        assert protocol().preprocessing.spacing == (1.0, 1.0, 1.0)


# --- the stand-in -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects at 6 mm."""
    root = tmp_path_factory.mktemp("brats")
    BraTS().write_demo(OPTIONS, root, lambda done, total: None)
    return root


def demo_cases(root: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    names = [f"DEMO_{number:03d}.nii.gz" for number in range(6)]
    return [
        (np.asarray(nib.load(root / "imagesTr" / name).dataobj), np.asarray(nib.load(root / "labelsTr" / name).dataobj))
        for name in names
    ]


def test_the_stand_in_has_the_same_bytes_every_time(demo: Path, tmp_path: Path) -> None:
    BraTS().write_demo(OPTIONS, tmp_path, lambda done, total: None)
    first, second = (
        {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}
        for root in (demo, tmp_path)
    )
    assert first == second
    assert len(first) == 2 * 6 + 1


def test_the_stand_in_is_laid_out_as_task01(demo: Path) -> None:
    description = json.loads((demo / "dataset.json").read_text())
    assert description["tensorImageSize"] == "4D"
    assert list(description["labels"]) == ["0", "1", "2", "3"]
    for image, label in demo_cases(demo):
        assert image.ndim == 4
        assert image.shape == (*label.shape, 4)
        assert image.dtype == np.int16
        assert label.dtype == np.uint8


def test_tumours_are_in_the_brain_and_hang_together(demo: Path) -> None:
    for image, label in demo_cases(demo):
        assert label.any()
        assert set(np.unique(label)) <= {0, 1, 2, 3}
        assert (image[label > 0] > 0).all()
        _, count = ndimage.label(label > 0)
        assert count == 1


def test_tumours_look_as_in_such_scans(demo: Path) -> None:
    """Over all subjects: edema is bright in FLAIR, the rim is bright after contrast agent, the core is dark in T1."""
    ratios: dict[str, list[float]] = {"edema": [], "rim": [], "core": []}
    for image, label in demo_cases(demo):
        brain = np.median(image[(label == 0) & (image[..., 0] > 0)], axis=0)
        for name, value, channel in (("edema", 1, 0), ("rim", 3, 2), ("core", 2, 1)):
            if (label == value).any():
                ratios[name].append(float(np.median(image[label == value][:, channel]) / brain[channel]))
    assert np.mean(ratios["edema"]) > 1.1
    assert np.mean(ratios["rim"]) > 1.0
    assert np.mean(ratios["core"]) < 0.95


def test_the_stand_in_is_opened_like_real_data(tmp_path: Path) -> None:
    data = open_data(BraTS(), OPTIONS, Store(tmp_path), data=None, demo=True, protocol=None)
    assert data.kind == "demo"
    assert data.layout.channels == CHANNELS
    assert data.protocol.preprocessing.spacing is None  # its own grid: nothing is gained by a finer one
    assert len(data.prepared.facts) == 6
    assert data.prepared.problems == {}
    assert all(facts.spacing == (6.0, 6.0, 6.0) for facts in data.prepared.facts.values())
