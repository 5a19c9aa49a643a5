"""nnU-Net's raw format: what dataset.json may say, which files make a case, folds, and what is refused."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from mae_bench.data.prepared import CaseFacts
from mae_bench.data.source import open_data
from mae_bench.engine.evaluate import native_truth, score_case
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout
from mae_bench.store import Store
from mae_bench.task import Protocol, Task
from mae_bench_plugins.datasets.nnunet import NNUNet, NNUNetOptions
from tests.files.nnunet import describe, write_nnunet, write_png_set

OPTIONS = NNUNetOptions()
FLAT = NNUNetOptions(ndim=2)
REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}


def opened(root: Path, options: NNUNetOptions = OPTIONS, name: str = "clean-v1") -> tuple[Layout, Protocol, Task]:
    nnunet = NNUNet()
    layout = nnunet.scan(options, root)
    protocol = nnunet.protocols(options, layout)[name]()
    return layout, protocol, nnunet.task(options, layout, protocol)


def change(root: Path, **fields: Any) -> None:
    """Change fields of dataset.json; None removes one."""
    describe(root, **(json.loads((root / "dataset.json").read_text()) | fields))


# --- reading volumes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_channels_are_read_in_order(ending: str, tmp_path: Path) -> None:
    truths = write_nnunet(tmp_path, channels=("T1", "T2", "FLAIR"), ending=ending)
    layout, _, task = opened(tmp_path)
    assert [case.id for case in layout.cases] == sorted(truths)
    assert layout.problems == {}
    assert layout.channels == task.channels == ("T1", "T2", "FLAIR")
    for case in layout.cases:
        raw = NNUNet().read(case, tmp_path)
        assert raw.label is not None
        np.testing.assert_array_equal(raw.image[:, ::-1, ::-1], truths[case.id].image)
        np.testing.assert_array_equal(raw.label[::-1, ::-1], truths[case.id].label)


def test_plain_labels_exclude_each_other(tmp_path: Path) -> None:
    write_nnunet(tmp_path, labels={"background": 0, "liver": 2, "spleen": [1]})
    layout, _, task = opened(tmp_path)
    assert [(region.name, region.labels, region.paint) for region in task.regions] == [
        ("liver", (2,), 2),
        ("spleen", (1,), 1),
    ]
    assert not task.overlapping
    assert task.outputs == 3
    assert task.flip_axes == ()
    assert layout.labels == {1: "spleen", 2: "liver"}


def test_regions_are_painted_in_their_order(tmp_path: Path) -> None:
    write_nnunet(tmp_path, labels=REGIONS, values=(1, 2, 3), regions_class_order=[1, 2, 3])
    layout, _, task = opened(tmp_path)
    assert task.overlapping
    assert task.outputs == 3
    assert [(region.name, region.labels, region.paint) for region in task.regions] == [
        ("whole tumor", (1, 2, 3), 1),
        ("tumor core", (2, 3), 2),
        ("enhancing tumor", (3,), 3),
    ]
    assert layout.labels == {1: "whole tumor", 2: "tumor core", 3: "enhancing tumor"}


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_perfect_prediction_is_perfect(overlapping: bool, tmp_path: Path) -> None:
    """Painted as predictions are, and scored as predictions are."""
    if overlapping:
        write_nnunet(tmp_path, labels=REGIONS, values=(1, 2, 3), regions_class_order=[1, 2, 3])
    else:
        write_nnunet(tmp_path)
    layout, protocol, task = opened(tmp_path)
    case = layout.cases[0]
    label = native_truth(NNUNet(), case, tmp_path)
    painted = np.zeros_like(label)
    for region in task.regions:
        painted[np.isin(label, region.labels)] = region.paint
    facts = CaseFacts(
        id=case.id, folder="", subject=case.id, sha256="", affine=None, native_shape=label.shape,
        native_spacing=(1.0, 1.0, 1.0), start=(0, 0, 0), cropped=label.shape, shape=label.shape,
        spacing=(1.0, 1.0, 1.0), labelled=True, points={},
    )  # fmt: skip
    found = score_case(painted, label, task, protocol, facts)
    assert len(found) == 2 + 2 * len(task.regions)
    assert all(value == (1.0 if name.startswith("dice") else 0.0) for name, value in found.items())


def test_files_may_be_named_in_dataset_json(tmp_path: Path) -> None:
    truths = write_nnunet(tmp_path, 3)
    entries = {}
    for case in truths:
        folder = tmp_path / "raw" / case
        folder.mkdir(parents=True)
        (tmp_path / "imagesTr" / f"{case}_0000.nii.gz").rename(folder / "scan.nii.gz")
        (tmp_path / "labelsTr" / f"{case}.nii.gz").rename(folder / "mask.nii.gz")
        entries[case] = {"images": [f"raw/{case}/scan.nii.gz"], "label": f"./raw/{case}/mask.nii.gz"}
    change(tmp_path, dataset=entries)
    layout, *_ = opened(tmp_path)
    assert layout.problems == {}
    for case in layout.cases:
        np.testing.assert_array_equal(NNUNet().read(case, tmp_path).image[:, ::-1, ::-1], truths[case.id].image)


@pytest.mark.parametrize("name", ["/etc/x.nii.gz", "../x.nii.gz", "a/../../x.nii.gz", "link/x.nii.gz", "\0.nii.gz", 7])
def test_paths_that_leave_the_data_directory_are_refused(name: Any, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_nnunet(root, 2)
    (tmp_path / "x.nii.gz").write_bytes((root / "imagesTr/abc_000_0000.nii.gz").read_bytes())
    (root / "link").symlink_to(tmp_path)
    good = {"images": ["imagesTr/abc_000_0000.nii.gz"], "label": "labelsTr/abc_000.nii.gz"}
    change(root, dataset={"abc_000": good, "bad": {"images": [name], "label": good["label"]}})
    layout = NNUNet().scan(OPTIONS, root)
    assert [case.id for case in layout.cases] == ["abc_000"]
    assert "data directory" in layout.problems["bad"]


def test_faults_of_cases_are_named(tmp_path: Path) -> None:
    write_nnunet(tmp_path, 6, channels=("T1", "T2"))
    (tmp_path / "labelsTr/abc_000.nii.gz").unlink()
    (tmp_path / "imagesTr/abc_001_0001.nii.gz").unlink()
    (tmp_path / "imagesTr/abc_002_0001.nii.gz").rename(tmp_path / "imagesTr/abc_002_0004.nii.gz")
    for channel in ("0000", "0001"):
        (tmp_path / f"imagesTr/abc_003_{channel}.nii.gz").unlink()
    (tmp_path / "imagesTr/scan.nii.gz").write_bytes(b"")
    (tmp_path / "imagesTr/notes.txt").write_text("")
    layout = NNUNet().scan(OPTIONS, tmp_path)
    assert [case.id for case in layout.cases] == ["abc_004", "abc_005"]
    expected = {
        "abc_000": "missing its label in labelsTr",
        "abc_001": r"1 image files, 2 channels (T1, T2)",
        "abc_002": "abc_002_0004.nii.gz: channel 0001 expected here",
        "abc_003": "0 image files, 2 channels",
        "scan": "scan_0000.nii.gz",
    }
    assert layout.problems.keys() == expected.keys()
    for case, text in expected.items():
        assert text in layout.problems[case]


def test_a_wrong_number_of_cases_is_named(tmp_path: Path) -> None:
    write_nnunet(tmp_path, 4, numTraining=5)
    with pytest.raises(InputError) as caught:
        open_data(NNUNet(), OPTIONS, Store(tmp_path / "store"), data=tmp_path, demo=False, protocol=None)
    assert caught.value.problems == (f"{tmp_path / 'dataset.json'}: numTraining is 5, 4 cases are there",)


def test_damaged_volumes_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_nnunet(root, 3)
    file = root / "labelsTr/abc_001.nii.gz"
    found = nib.load(file)
    nib.save(nib.Nifti1Image(np.full(found.shape, 9, np.uint8), found.affine), file)
    (root / "imagesTr/abc_002_0000.nii.gz").write_bytes(b"no volume")
    with pytest.raises(InputError) as caught:
        open_data(NNUNet(), OPTIONS, Store(tmp_path / "store"), data=root, demo=False, protocol=None)
    first, second = caught.value.problems
    assert "abc_001.nii.gz: label values [9] are not declared" in first
    assert "abc_002_0000.nii.gz: not a NIfTI file" in second


# --- dataset.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file_ending": ".nrrd"}, r"file_ending '.nrrd': only .nii.gz, .nii, .png are read"),
        ({"file_ending": None}, "file_ending None"),
        ({"numTraining": "4"}, "numTraining '4'"),
        ({"numTraining": True}, "numTraining True"),
        ({"channel_names": {"1": "T1"}}, "channel_names must be an object with the keys 0, 1, 2"),
        ({"channel_names": ["T1"]}, "channel_names must be"),
        ({"channel_names": None}, "channel_names must be"),
        ({"labels": {"0": "background", "1": "tumour"}}, "from values to names, as in nnU-Net v1"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, "voxels marked `ignore`"),
        ({"labels": {"a": 1}}, "labels must contain background, with the value 0"),
        ({"labels": {"background": 1, "a": 2}}, "labels must contain background, with the value 0"),
        ({"labels": {"background": 0}}, "nothing but the background"),
        ({"labels": {"background": 0, "a": 256}}, "a: 256 is not between 1 and 255"),
        ({"labels": {"background": 0, "a": 1.5}}, "a: 1.5 is neither a whole number nor a list"),
        ({"labels": {"background": 0, "a": True}}, "a: True is neither"),
        ({"labels": {"background": 0, "a": []}}, r"a: \[\] is neither"),
        ({"labels": {"background": 0, "a": [1, 1]}}, "names a value twice"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "a value has two names"),
        ({"labels": REGIONS}, "regions_class_order must list one label value for each of the 3 regions"),
        ({"labels": REGIONS, "regions_class_order": [1, 2]}, "regions_class_order must list"),
        ({"labels": REGIONS, "regions_class_order": [3, 2, 1]}, "voxels of label 1 become 3, which changes region"),
        ({"labels": REGIONS, "regions_class_order": ["1", 2, 3]}, "neither a whole number"),
        ({"dataset": []}, "dataset must be an object"),
    ],
    ids=str,
)
def test_what_dataset_json_may_not_say(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_nnunet(tmp_path, 1)
    change(tmp_path, **fields)
    with pytest.raises(InputError, match=message) as caught:
        NNUNet().scan(OPTIONS, tmp_path)
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [(None, "missing"), ("{", "broken JSON at line 1"), ("[]", "an object")])
def test_a_missing_or_broken_dataset_json(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=f"dataset.json: .*{message}"):
        NNUNet().scan(OPTIONS, tmp_path)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    write_nnunet(tmp_path, 1)
    (tmp_path / "labelsTr").rename(tmp_path / "labels")
    with pytest.raises(InputError, match="labelsTr: No such file"):
        NNUNet().scan(OPTIONS, tmp_path)


def test_the_old_name_of_channels_is_read(tmp_path: Path) -> None:
    write_nnunet(tmp_path, 1, channel_names=None, modality={"0": "T2"})
    assert opened(tmp_path)[0].channels == ("T2",)


# --- normalisation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "options", "expected"),
    [
        (("CT",), {}, ("window", -175, 250)),
        (("ct", "CT"), {"low": -50, "high": 100}, ("window", -50, 100)),
        (("T1", "T2"), {}, ("zscore", None, None)),
        (("zscore",), {}, ("zscore", None, None)),
        (("CT",), {"intensity": "zscore"}, ("zscore", None, None)),
        (("CT", "PET"), {"intensity": "zscore"}, ("zscore", None, None)),
        (("noNorm",), {"intensity": "window", "low": 0, "high": 1}, ("window", 0, 1)),
        (("rgb_to_0_1", "rgb_to_0_1"), {"low": -3}, ("window", 0, 255)),
    ],
    ids=str,
)
def test_channels_say_how_they_are_normalised(
    channels: tuple[str, ...], options: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    write_nnunet(tmp_path, 1, channels=channels)
    found = opened(tmp_path, NNUNetOptions(**options))[1].preprocessing.intensity
    assert (found.kind, found.low, found.high) == expected


@pytest.mark.parametrize("channels", [("CT", "PET"), ("noNorm",), ("rescale_to_0_1",), ("rgb_to_0_1", "CT")], ids=str)
def test_mixed_normalisations_are_refused_with_what_to_set(channels: tuple[str, ...], tmp_path: Path) -> None:
    write_nnunet(tmp_path, 1, channels=channels)
    with pytest.raises(InputError, match="one normalisation for all channels") as caught:
        opened(tmp_path)
    assert "--intensity zscore" in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [{"low": 3, "high": 3}, {"ndim": 4}, {"ndim": 2, "spacing": (1, 1, 1)}, {"spacing": (1, 0, 1)}, {"fold": -1}],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NNUNetOptions(**options)


# --- planes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"channels": 2}, {"colour": True}], ids=str)
def test_planes_are_read_as_they_are(fields: dict[str, Any], tmp_path: Path) -> None:
    written = write_png_set(tmp_path / "data", **fields)
    nnunet = NNUNet()
    data = open_data(nnunet, FLAT, Store(tmp_path / "store"), data=tmp_path / "data", demo=False, protocol=None)
    assert data.task.ndim == 2
    assert data.protocol.distance_unit == "voxel"
    assert data.protocol.preprocessing.spacing is None
    assert set(data.prepared.facts) == set(written)
    for case in data.layout.cases:
        raw = nnunet.read(case, tmp_path / "data")
        assert raw.affine is None
        assert raw.label is not None
        np.testing.assert_array_equal(np.concatenate([raw.image, raw.label[None]]), written[case.id])
        np.testing.assert_array_equal(native_truth(nnunet, case, tmp_path / "data"), written[case.id][-1])


def test_axes_must_be_those_of_the_files(tmp_path: Path) -> None:
    write_png_set(tmp_path / "flat", 1)
    write_nnunet(tmp_path / "deep", 1)
    with pytest.raises(UsageError, match=r".png files have 2 axes: add --ndim 2, .*recipe.roi=\[32, 32\]"):
        NNUNet().scan(OPTIONS, tmp_path / "flat")
    with pytest.raises(UsageError, match=r".nii.gz files have 3 axes: add --ndim 3"):
        NNUNet().scan(FLAT, tmp_path / "deep")
    assert NNUNet().provides(FLAT) == {"2d", "segmentation"}
    assert NNUNet().needs(OPTIONS) == {"3d"}


def bad_plane(kind: str, root: Path) -> None:
    image, label = root / "imagesTr/road_0_0000.png", root / "labelsTr/road_0.png"
    grey = Image.open(image).convert("L")
    if kind == "colour for one channel":
        grey.convert("RGB").save(image)
    elif kind == "alpha":
        grey.convert("LA").save(image)
    elif kind == "another size":
        grey.resize((5, 5)).save(label)
    elif kind == "label of colours":
        Image.open(label).convert("RGB").save(label)
    elif kind == "label of a palette":
        Image.open(label).convert("P").save(label)
    elif kind == "label of one bit":
        Image.open(label).point(lambda value: 255 * value).convert("1").save(label)
    elif kind == "truncated":
        image.write_bytes(image.read_bytes()[:60])
    elif kind == "no PNG":
        image.write_bytes(b"GIF89a")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("colour for one channel", "road_0_0000.png: 3 channels, expected 1"),
        ("alpha", "road_0_0000.png: neither grey nor RGB"),
        ("another size", "road_0.png: shape (5, 5) differs"),
        ("label of colours", "road_0.png: a label must be a grey PNG"),
        ("label of a palette", "road_0.png: a label must be a grey PNG"),
        ("label of one bit", "road_0.png: a label must be a grey PNG"),
        ("truncated", "road_0_0000.png: truncated PNG"),
        ("no PNG", "road_0_0000.png: not a PNG"),
    ],
)
def test_damaged_planes_are_named(kind: str, message: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_png_set(root)
    bad_plane(kind, root)
    with pytest.raises(InputError) as caught:
        open_data(NNUNet(), FLAT, Store(tmp_path / "store"), data=root, demo=False, protocol=None)
    (line,) = caught.value.problems
    assert message in line


def test_planes_of_one_case_are_of_one_size(tmp_path: Path) -> None:
    write_png_set(tmp_path, 3, channels=2)
    path = tmp_path / "imagesTr/road_1_0001.png"
    Image.open(path).resize((8, 8)).save(path)
    (case,) = (case for case in NNUNet().scan(FLAT, tmp_path).cases if case.id == "road_1")
    with pytest.raises(InputError, match=r"road_1_0001.png: size \(8, 8\) differs"):
        NNUNet().read(case, tmp_path)


# --- splits -----------------------------------------------------------------------------------------------------------


def write_folds(root: Path, folds: Any) -> None:
    (root / "splits_final.json").write_text(json.dumps(folds))


def five_folds(count: int) -> list[dict[str, list[str]]]:
    names = [f"abc_{number:03d}" for number in range(count)]
    return [
        {"train": [name for name in names if name not in names[fold::5]], "val": names[fold::5]} for fold in range(5)
    ]


def test_clean_splits_by_hash(tmp_path: Path) -> None:
    write_nnunet(tmp_path / "data", 10)
    data = open_data(NNUNet(), OPTIONS, Store(tmp_path / "s"), data=tmp_path / "data", demo=False, protocol=None)
    sides = (data.split.train, data.split.val, data.split.test)
    assert data.protocol.name == "clean-v1"
    assert sum(map(len, sides)) == len({case for side in sides for case in side}) == 10
    assert all(sides)


@pytest.mark.parametrize("fold", range(5))
def test_a_fold_of_the_file_is_tested(fold: int, tmp_path: Path) -> None:
    write_nnunet(tmp_path, 10)
    write_folds(tmp_path, five_folds(10))
    options = NNUNetOptions(fold=fold)
    layout, protocol, _ = opened(tmp_path, options, "nnunet-folds")
    split = NNUNet().split(layout.cases, protocol)
    assert sorted(split.test) == five_folds(10)[fold]["val"]
    assert sorted(split.train + split.val) == five_folds(10)[fold]["train"]
    assert len(split.val) == 1
    assert not set(split.train) & set(split.val)
    assert protocol.selection == "validation"


def test_folds_are_offered_only_where_their_file_is(tmp_path: Path) -> None:
    write_nnunet(tmp_path, 5)
    layout = NNUNet().scan(OPTIONS, tmp_path)
    assert list(NNUNet().protocols(OPTIONS, layout)) == ["clean-v1"]
    with pytest.raises(UsageError, match="--fold 1: only protocol nnunet-folds has folds"):
        opened(tmp_path, NNUNetOptions(fold=1))
    write_folds(tmp_path, five_folds(5))
    assert list(NNUNet().protocols(OPTIONS, layout)) == ["clean-v1", "nnunet-folds"]


def test_other_folds_are_another_version(tmp_path: Path) -> None:
    """The version is what keeps keys and tables apart: the file is no part of the fingerprint."""
    write_nnunet(tmp_path, 5)
    versions = set()
    for folds in (five_folds(5), five_folds(5)[::-1]):
        write_folds(tmp_path, folds)
        versions |= {opened(tmp_path, NNUNetOptions(fold=fold), "nnunet-folds")[1].version for fold in range(5)}
    assert len(versions) == 2


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"train": []}, "must be a list of objects"),
        ([{"train": ["abc_000"]}], "must be a list of objects"),
        ([{"train": "abc_000", "val": []}], "must be lists of case names"),
        ([{"train": ["abc_000", "abc_000"], "val": ["abc_001"]}], "listed twice"),
        ([{"train": ["abc_000", "abc_001"], "val": ["abc_001"]}], "both in train and in val: abc_001"),
        ([{"train": ["abc_000", "abc_009"], "val": ["abc_001"]}], "no such cases: abc_009"),
        ([{"train": ["abc_000"], "val": ["abc_001"]}], "at least two train cases"),
        ([{"train": ["abc_000", "abc_001"], "val": []}], "one val case"),
    ],
    ids=str,
)
def test_damaged_folds_are_refused(folds: Any, message: str, tmp_path: Path) -> None:
    write_nnunet(tmp_path, 3)
    write_folds(tmp_path, folds)
    with pytest.raises(InputError, match=f"splits_final.json: .*{message}"):
        opened(tmp_path, name="nnunet-folds")


def test_a_fold_beyond_the_file_is_refused(tmp_path: Path) -> None:
    write_nnunet(tmp_path, 5)
    write_folds(tmp_path, five_folds(5))
    with pytest.raises(UsageError, match="has 5 folds, counted from 0"):
        opened(tmp_path, NNUNetOptions(fold=5), "nnunet-folds")


def test_a_side_without_usable_cases_is_refused(tmp_path: Path) -> None:
    write_nnunet(tmp_path, 5)
    write_folds(tmp_path, five_folds(5))
    layout, protocol, _ = opened(tmp_path, name="nnunet-folds")
    with pytest.raises(InputError, match="none of the test cases can be used"):
        NNUNet().split(layout.cases[1:], protocol)


def test_there_is_no_stand_in(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stand-in"):
        NNUNet().write_demo(OPTIONS, tmp_path, lambda done, total: None)
    assert not NNUNet.stand_in
