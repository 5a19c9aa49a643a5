"""Abdominal organs: the official arrangement and MONAI's, three protocols that must not be mixed, and the stand-in."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.data.prepared import CaseFacts
from mae_bench.data.source import Data, open_data
from mae_bench.engine.evaluate import native_truth, score_case
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout, RawCase
from mae_bench.recipe import load_recipe
from mae_bench.spec import Choice, DataSource, RunSpec
from mae_bench.store import Store
from mae_bench.task import Protocol, Split
from mae_bench_plugins.datasets.btcv import BTCV, LABELS, ORGANS, PAPER_ORGANS, BTCVOptions
from mae_bench_plugins.datasets.btcv.splits import choose, fold_sides
from tests.files.btcv import MONAI, OFFICIAL, write_btcv, write_dataset_0

OPTIONS = BTCVOptions()
COARSE = BTCVOptions(demo_spacing=8)
IDS = {f"img{number:04d}" for number in OFFICIAL}
# PAPER 2b, as the lists stand there.
PAPER_TRAIN = "5 6 7 9 10 21 23 24 26 27 28 30 31 33 34 37 39 40"
PAPER_VAL = "1 2 3 4 8 22 25 29 32 35 36 38"


def ids(numbers: str) -> set[str]:
    return {f"img{int(number):04d}" for number in numbers.split()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 30 cases, tiny, in the official arrangement."""
    root = tmp_path_factory.mktemp("btcv")
    write_btcv(root, organs=range(1, 3))
    return root


def rules(root: Path, name: str, options: BTCVOptions = OPTIONS) -> tuple[Layout, Protocol]:
    btcv = BTCV()
    layout = btcv.scan(options, root)
    return layout, btcv.protocols(options, layout)[name]()


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "names"),
    [("RawData/Training", ("img", "label")), ("Training", ("img", "label")), (".", ("img", "label")), (".", MONAI)],
)
def test_the_same_cases_in_every_arrangement(folder: str, names: tuple[str, str], tmp_path: Path) -> None:
    truths = write_btcv(tmp_path, (1, 21), folder, names)
    btcv = BTCV()
    layout = btcv.scan(OPTIONS, tmp_path)
    assert [case.id for case in layout.cases] == ["img0001", "img0021"]
    assert layout.problems == {}
    assert layout.labels == LABELS
    for case, truth in zip(layout.cases, truths.values(), strict=True):
        raw = btcv.read(case, tmp_path)
        assert raw.label is not None
        np.testing.assert_array_equal(raw.image[:, ::-1], truth.image)
        np.testing.assert_array_equal(raw.label[::-1], truth.label)


def test_organs_have_the_official_numbers() -> None:
    assert [LABELS[value] for value in (1, 2, 3, 6, 8, 11, 13)] == [
        "spleen", "right kidney", "left kidney", "liver", "aorta", "pancreas", "left adrenal gland"
    ]  # fmt: skip
    assert list(LABELS) == list(range(1, 14))


def test_a_missing_half_of_a_pair_is_named(tmp_path: Path) -> None:
    write_btcv(tmp_path, (1, 2, 3))
    (tmp_path / "RawData/Training/label/label0002.nii.gz").unlink()
    (tmp_path / "RawData/Training/img/img0003.nii.gz").unlink()
    layout = BTCV().scan(OPTIONS, tmp_path)
    assert [case.id for case in layout.cases] == ["img0001"]
    assert "label/label0002.nii.gz" in layout.problems["img0002"]
    assert "img/img0003.nii.gz" in layout.problems["img0003"]


def test_numbers_and_names_that_are_not_of_the_30_are_named(tmp_path: Path) -> None:
    write_btcv(tmp_path, (1, 11, 61))
    folder = tmp_path / "RawData/Training/img"
    (folder / "scan.nii.gz").write_bytes(b"")
    (folder / "img0001.nii").write_bytes(b"")
    (folder / "README.txt").write_text("terms")
    problems = BTCV().scan(OPTIONS, tmp_path).problems
    assert problems.keys() == {"img0001", "img0011", "img0061", "scan.nii.gz"}
    assert "11 is no labelled case (those are 1 to 10 and 21 to 40)" in problems["img0011"]
    assert "beside img0001.nii" in problems["img0001"]
    assert "not named img and four digits" in problems["scan.nii.gz"]


def test_a_link_out_of_the_data_directory_is_refused(tmp_path: Path) -> None:
    write_btcv(tmp_path / "elsewhere", (1,))
    write_btcv(tmp_path / "data", (2,))
    link = tmp_path / "data/RawData/Training/img/img0001.nii.gz"
    link.symlink_to(tmp_path / "elsewhere/RawData/Training/img/img0001.nii.gz")
    layout = BTCV().scan(OPTIONS, tmp_path / "data")
    assert [case.id for case in layout.cases] == ["img0002"]
    assert "leaves the data directory" in layout.problems["img0001"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such folder"):
        BTCV().scan(OPTIONS, tmp_path / "gone")
    with pytest.raises(InputError, match="neither RawData/Training/img") as caught:
        BTCV().scan(OPTIONS, tmp_path)
    assert "data status btcv" in caught.value.hint
    (tmp_path / "Training/img").mkdir(parents=True)
    with pytest.raises(InputError, match="Training/label: missing, though img/ is there"):
        BTCV().scan(OPTIONS, tmp_path)
    (tmp_path / "Training/label").mkdir()
    with pytest.raises(InputError, match=r"Training/img: no file imgNNNN\.nii\.gz"):
        BTCV().scan(OPTIONS, tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_btcv(root, (1, 2, 3, 4))
    folder = root / "RawData/Training"
    path = folder / "img/img0001.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    found = nib.load(folder / "label/label0002.nii.gz")
    nib.save(nib.Nifti1Image(np.full(found.shape, 14, np.uint8), found.affine), folder / "label/label0002.nii.gz")
    (folder / "label/label0003.nii.gz").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        open_data(BTCV(), OPTIONS, Store(tmp_path / "store"), data=root, demo=False, protocol=None)
    lines = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "img0001.nii.gz: truncated" in lines
    assert "label0002.nii.gz: label values [14] are not declared" in lines
    assert "label0003.nii.gz: empty file" in lines


# --- protocols and splits ---------------------------------------------------------------------------------------------


def test_protocols_in_order(whole: Path) -> None:
    btcv = BTCV()
    assert list(btcv.protocols(OPTIONS, btcv.scan(OPTIONS, whole))) == ["clean-v1", "paper", "monai-24-6"]


def sides_of(root: Path, name: str, options: BTCVOptions = OPTIONS) -> Split:
    layout, protocol = rules(root, name, options)
    return BTCV().split(layout.cases, protocol)


@pytest.mark.parametrize("fold", range(5))
def test_a_fold_is_a_partition(fold: int, whole: Path) -> None:
    split = sides_of(whole, "clean-v1", BTCVOptions(fold=fold))
    assert [len(side) for side in (split.train, split.val, split.test)] == [21, 3, 6]
    assert sorted(split.train + split.val + split.test) == sorted(IDS)


def test_every_case_is_tested_in_one_fold() -> None:
    assert sorted(case for fold in range(5) for case in fold_sides(fold).test) == sorted(IDS)


@settings(max_examples=25, deadline=None)
@given(gone=st.sets(st.sampled_from(OFFICIAL), max_size=12), fold=st.integers(0, 4))
def test_missing_cases_do_not_move_others_between_sides(gone: set[int], fold: int) -> None:
    names = [f"img{number:04d}" for number in OFFICIAL if number not in gone]
    cases = [RawCase(name, name, (Path(name),)) for name in names]
    full = fold_sides(fold)
    if any(not set(side) & set(names) for _, side in full):
        with pytest.raises(InputError, match=r"protocol clean-v1: no (train|val|test) case is there"):
            choose(full, cases, "clean-v1", fixed=False)
        return
    split = choose(full, cases, "clean-v1", fixed=False)
    for (_, less), (_, more) in zip(split, full, strict=True):
        assert less == tuple(name for name in more if name in names)


def test_the_paper_split_is_the_published_one(whole: Path) -> None:
    split = sides_of(whole, "paper")
    assert set(split.train) == ids(PAPER_TRAIN)
    assert set(split.test) == set(split.val) == ids(PAPER_VAL)
    assert len(split.train) == 18
    assert len(split.test) == 12


def test_the_paper_protocol_repeats_the_paper(whole: Path) -> None:
    layout, paper = rules(whole, "paper")
    assert (paper.pretrain_crops, paper.selection, paper.scored_on) == ("labels", "test", "prepared")
    assert (paper.distance_unit, paper.empty, paper.crop_zscore) == ("voxel", "ignore", False)
    task = BTCV().task(OPTIONS, layout, paper)
    assert task.outputs == 14
    assert task.flip_axes == (0, 1, 2)
    # PAPER 2b: 0-based organ indices of the headline.
    assert [number for number, region in enumerate(task.regions) if region.headline] == [0, 1, 2, 3, 5, 6, 7, 10]


@pytest.mark.parametrize("name", ["clean-v1", "monai-24-6"])
def test_other_protocols_are_clean(name: str, whole: Path) -> None:
    layout, protocol = rules(whole, name)
    assert (protocol.pretrain_crops, protocol.scored_on) == ("foreground", "native")
    assert (protocol.distance_unit, protocol.empty) == ("mm", "score")
    task = BTCV().task(OPTIONS, layout, protocol)
    assert task.flip_axes == ()  # left and right have names
    assert all(region.headline for region in task.regions)
    assert protocol.selection == ("validation" if name == "clean-v1" else "test")


@pytest.mark.parametrize("name", ["clean-v1", "paper", "monai-24-6"])
def test_preprocessing_is_the_published_one(name: str, whole: Path) -> None:
    preprocessing = rules(whole, name)[1].preprocessing
    assert preprocessing.spacing == (1.5, 1.5, 2.0)
    assert (preprocessing.intensity.kind, preprocessing.intensity.low, preprocessing.intensity.high) == (
        "window",
        -175,
        250,
    )
    assert preprocessing.crop_to_foreground


def test_monai_without_its_file_says_that_the_six_are_from_memory(whole: Path) -> None:
    _, protocol = rules(whole, "monai-24-6")
    split = sides_of(whole, "monai-24-6")
    assert split.test == split.val == tuple(f"img{number:04d}" for number in range(35, 41))
    assert len(split.train) == 24
    assert "from memory" in protocol.summary


def test_monai_reads_its_file(tmp_path: Path) -> None:
    write_btcv(tmp_path, folder=".", names=MONAI, organs=(1,))
    write_dataset_0(tmp_path / "dataset_0.json", range(35, 41))
    layout, same = rules(tmp_path, "monai-24-6")
    assert (same.name, same.version) == ("monai-24-6", 1)
    assert "as dataset_0.json lists them" in same.summary
    assert BTCV().split(layout.cases, same).test == tuple(f"img{number:04d}" for number in range(35, 41))
    write_dataset_0(tmp_path / "dataset_0.json", (1, 2, 3, 4, 5, 6))
    layout, other = rules(tmp_path, "monai-24-6")
    # Another split is another version: that keeps keys and tables apart.
    assert other.name == "monai-24-6"
    assert other.version != 1
    assert BTCV().split(layout.cases, other).test == tuple(f"img{number:04d}" for number in range(1, 7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("{}", "training"),
        ('{"training": [], "validation": []}', "not a list of cases"),
        ('{"training": [{"image": "a.nii.gz"}], "validation": []}', "'a.nii.gz' is not one of the 30"),
        ('{"training": [{"image": "img0061.nii.gz"}], "validation": []}', "'img0061.nii.gz' is not one of the 30"),
        (
            '{"training": [{"image": "img0001.nii.gz"}], "validation": [{"image": "imagesTr/img0001.nii.gz"}]}',
            "both in training and in validation: img0001",
        ),
    ],
)
def test_a_damaged_dataset_0_is_refused(text: str, message: str, tmp_path: Path) -> None:
    write_btcv(tmp_path, (1,), ".", MONAI)
    (tmp_path / "dataset_0.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset_0\.json: ") as caught:
        rules(tmp_path, "monai-24-6")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["paper", "monai-24-6"])
def test_a_fixed_split_that_lacks_cases_is_refused_with_their_names(name: str, tmp_path: Path) -> None:
    write_btcv(tmp_path, [number for number in OFFICIAL if number not in (4, 33)], organs=(1,))
    (tmp_path / "RawData/Training/label/label0021.nii.gz").unlink()
    with pytest.raises(InputError, match="missing: img0004, img0021, img0033") as caught:
        rules(tmp_path, name)
    assert "label0021.nii.gz" in caught.value.problems[0]
    assert "clean-v1" in caught.value.hint


def test_a_fixed_split_is_checked_again_after_bad_cases_were_left_out(whole: Path) -> None:
    layout, protocol = rules(whole, "paper")
    with pytest.raises(InputError, match=r"missing: img0001$|missing: img0001\n"):
        BTCV().split(layout.cases[1:], protocol)


@pytest.mark.parametrize("name", ["paper", "monai-24-6"])
def test_protocols_without_folds_refuse_one(name: str, whole: Path) -> None:
    with pytest.raises(UsageError, match="--fold 3: only protocol clean-v1 has folds"):
        rules(whole, name, BTCVOptions(fold=3))


def test_folds_have_keys_of_their_own_and_one_name(whole: Path) -> None:
    """The sides are no part of a specification; the option is."""
    recipe = load_recipe(BTCV.recipes, "smoke").for_method("mae", "vit")
    keys = set()
    for fold in range(5):
        options = BTCVOptions(fold=fold)
        protocol = rules(whole, "clean-v1", options)[1]
        assert protocol.name == "clean-v1"
        part = Choice(name="x", options={})
        spec = RunSpec(
            dataset=Choice(name="btcv", options=options.model_dump(mode="json")),
            data=DataSource(kind="real", fingerprint=""),
            protocol=protocol, backbone=part, pretrain=part, head=part, recipe=recipe,
        )  # fmt: skip
        keys.add(spec.key())
        again = RunSpec.model_validate_json(spec.model_dump_json())
        assert again.key() == spec.key()
    assert len(keys) == 5


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clean-v1", "paper", "monai-24-6"])
def test_a_perfect_prediction_is_perfect(name: str, tmp_path: Path) -> None:
    truth = write_btcv(tmp_path)[7]
    layout, protocol = rules(tmp_path, name)
    task = BTCV().task(OPTIONS, layout, protocol)
    case = next(case for case in layout.cases if case.id == "img0007")
    label = native_truth(BTCV(), case, tmp_path)
    np.testing.assert_array_equal(label, truth.label)
    facts = CaseFacts(
        id=case.id, folder="", subject=case.id, sha256="", affine=None, native_shape=label.shape,
        native_spacing=(1.0, 1.2, 2.5), start=(0, 0, 0), cropped=label.shape, shape=label.shape,
        spacing=(1.0, 1.2, 2.5), labelled=True, points={},
    )  # fmt: skip
    painted = np.zeros_like(label)
    for region in task.regions:
        painted[np.isin(label, region.labels)] = region.paint
    found = score_case(painted, label, task, protocol, facts)
    assert {key: value for key, value in found.items() if value != (1.0 if key.startswith("dice") else 0.0)} == {}
    # Losing an organ that is not of the 8 costs the paper's mean nothing.
    painted[label == 5] = 0
    worse = score_case(painted, label, task, protocol, facts)
    assert worse["dice/esophagus"] == 0.0
    assert worse["dice"] == pytest.approx(1.0 if name == "paper" else 12 / 13)


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_of_the_paper() -> None:
    """PAPER 3: rates after scaling, iterations as counted there."""
    short, long, default = (load_recipe(BTCV.recipes, name) for name in ("paper-800", "paper-10000", "paper"))
    assert default.model_copy(update={"name": short.name}) == short
    assert short.roi == (96, 96, 96)
    assert short.pretrain.total_steps(18) == 2400
    assert long.pretrain.total_steps(18) == 30_000
    assert short.finetune.total_steps(18) == 15_000
    assert long.finetune == short.finetune
    assert short.pretrain.lr == pytest.approx(6.4e-3 * 6 / 256)
    assert short.finetune.lr == pytest.approx(3.44e-2 * 6 / 256, rel=1e-3)
    for recipe in (short, long):
        assert recipe.pretrain.warmup * recipe.pretrain.epochs == pytest.approx(100)
        assert recipe.for_plugin("pretrain", "mae") == {
            "ratio": 0.125, "decoder_dim": 384, "decoder_depth": 8, "decoder_heads": 12
        }  # fmt: skip
    for cnn in ("resnet18", "resnet50", "densenet121"):
        v2 = short.for_method("moco", cnn).pretrain
        assert (v2.optimizer, v2.weight_decay) == ("sgd", 1e-4)
        assert v2.lr == pytest.approx(0.03 * 24 / 256, rel=1e-2)
    assert short.for_method("moco", "vit").pretrain.weight_decay == 0.1
    assert short.for_method("imagenet", "vit") == short.for_method("mae", "vit")


# --- the stand-in -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in at 8 mm."""
    root = tmp_path_factory.mktemp("demo")
    BTCV().write_demo(COARSE, root, lambda done, total: None)
    return root


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Data:
    store = Store(tmp_path_factory.mktemp("store"))
    return open_data(BTCV(), COARSE, store, data=None, demo=True, protocol=None)


def test_the_stand_in_has_the_same_bytes_every_time(demo: Path, tmp_path: Path) -> None:
    BTCV().write_demo(COARSE, tmp_path, lambda done, total: None)
    first, second = (
        {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}
        for root in (demo, tmp_path)
    )
    assert first == second
    assert len(first) == 2 * 30 + 1


def test_the_stand_in_has_the_official_names_so_that_every_split_works(demo: Path) -> None:
    assert {case.id for case in BTCV().scan(COARSE, demo).cases} == IDS
    for name in ("clean-v1", "paper", "monai-24-6"):
        assert sides_of(demo, name).train


def test_the_stand_in_is_read_like_real_data_on_its_own_grid(opened: Data) -> None:
    assert opened.kind == "demo"
    assert opened.prepared.problems == {}
    assert opened.protocol.preprocessing.spacing == (8.0, 8.0, 8.0)
    natives = {facts.native_spacing for facts in opened.prepared.facts.values()}
    assert len(natives) == 30
    assert all(7 < size < 11 for spacing in natives for size in spacing)
    for case in ("img0001", "img0040"):
        image = opened.prepared.case(case).image()
        assert image.min() >= 0
        assert image.max() <= 1


def volumes(root: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and label in RAS order."""
    folder = root / "RawData/Training"
    pair = (nib.load(folder / f"img/img{number:04d}.nii.gz"), nib.load(folder / f"label/label{number:04d}.nii.gz"))
    np.testing.assert_allclose(pair[0].affine, pair[1].affine)
    image, label = (np.asarray(nib.as_closest_canonical(one).dataobj) for one in pair)
    return image, label


def test_organs_lie_where_they_belong(demo: Path) -> None:
    """Right is the first axis in RAS order; in every case."""
    for number in OFFICIAL:
        _, label = volumes(demo, number)
        at = {
            name: np.argwhere(label == value).mean(axis=0) for value, name in LABELS.items() if (label == value).any()
        }
        assert at.keys() >= set(ORGANS) - {"gallbladder", "right adrenal gland", "left adrenal gland"}
        assert at["liver"][0] > at["aorta"][0] > at["spleen"][0]
        assert at["right kidney"][0] > at["inferior vena cava"][0] > at["aorta"][0] > at["left kidney"][0]
        assert at["stomach"][1] > at["aorta"][1]
        assert at["esophagus"][2] > at["pancreas"][2] > np.argwhere(label == 9).min(axis=0)[2]


def test_intensities_are_hounsfield_units(demo: Path) -> None:
    levels: dict[str, list[float]] = {name: [] for name in ORGANS}
    for number in OFFICIAL:
        image, label = volumes(demo, number)
        assert image.dtype == np.int16
        assert label.dtype == np.uint8
        assert -1024 <= image.min() < -950  # air
        for value, name in LABELS.items():
            if (label == value).sum() > 20:
                levels[name].append(float(np.median(image[label == value])))
    assert 55 < np.mean(levels["liver"]) < 130
    assert 50 < np.mean(levels["spleen"]) < 150
    assert np.mean(levels["aorta"]) > np.mean(levels["liver"])
    assert np.mean(levels["gallbladder"]) < 30
    # The phase varies: a threshold for the aorta in one case is another in the next.
    assert np.ptp(levels["aorta"]) > 60
    # Left and right kidney cannot be told apart by brightness.
    assert abs(np.mean(levels["right kidney"]) - np.mean(levels["left kidney"])) < 20


def test_a_damaged_mark_of_a_stand_in_is_refused(tmp_path: Path) -> None:
    write_btcv(tmp_path, (1,))
    for text in ("{", "{}", json.dumps({"spacing": "nan"}), json.dumps({"spacing": -1})):
        (tmp_path / "stand-in.json").write_text(text)
        with pytest.raises(InputError, match=r"stand-in\.json"):
            rules(tmp_path, "clean-v1")


def test_headline_organs_are_organs() -> None:
    assert set(ORGANS) > PAPER_ORGANS
    assert len(PAPER_ORGANS) == 8
