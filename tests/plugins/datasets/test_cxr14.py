"""ChestX-ray14 in its official layouts, its split, and the drawn stand-in."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mae_bench.data.source import Data, open_data
from mae_bench.errors import InputError
from mae_bench.interfaces import Layout
from mae_bench.recipe import load_recipe, recipe_names
from mae_bench.registry import registry
from mae_bench.store import Store
from mae_bench.task import Split
from mae_bench_plugins.datasets.cxr14 import CXR14, FINDINGS, STAND_IN, STAND_IN_SIZE, CXR14Options
from mae_bench_plugins.datasets.cxr14.drawings import plan_visits
from mae_bench_plugins.datasets.cxr14.official import SINGLY
from mae_bench_plugins.datasets.cxr14.pathology import DENSITIES, draw_findings
from mae_bench_plugins.datasets.cxr14.sides import Radiograph, check_sides, official_split, validation_patients
from mae_bench_plugins.datasets.cxr14.table import parse_findings
from mae_bench_plugins.datasets.cxr14.thorax import draw_patient
from tests.files.cxr14 import Film, draw, films, write_cxr14, write_image, write_lists, write_table

OPTIONS = CXR14Options()
SMALL = CXR14Options(subjects=12, demo_size=64)
SHOWN = films(12)


def scan(root: Path, options: CXR14Options = OPTIONS) -> Layout:
    return CXR14().scan(options, root)


def opened(root: Path, store: Path, protocol: str = "clean-v1", **options: object) -> Data:
    return open_data(CXR14(), CXR14Options(size=32, **options), Store(store), data=root, demo=False, protocol=protocol)


def refused(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        scan(root)
    return str(caught.value)


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"])
@pytest.mark.parametrize(
    "folders",
    [["images"], ["images_001/images", "images_007/images", "images_012/images"], ["images_001", "images_002"]],
)
def test_official_layouts(table: str, folders: list[str], tmp_path: Path) -> None:
    write_cxr14(tmp_path, SHOWN, table=table, folders=folders)
    layout = scan(tmp_path)
    assert layout.problems == {}
    assert layout.channels == ("X-ray",)
    assert [case.id for case in layout.cases] == [film.name[:-4] for film in SHOWN]
    for film, case in zip(SHOWN, layout.cases, strict=True):
        assert case.subject == str(film.patient)
        assert case.label is None
        assert {name for name, found in zip(FINDINGS, case.findings, strict=True) if found} == (
            set(film.labels.split("|")) - {"No Finding"}
        )
        raw = CXR14().read(case, tmp_path)
        np.testing.assert_array_equal(raw.image, draw(film)[None])
        assert raw.affine is None
        assert raw.label is None


def test_findings_are_in_the_order_of_the_lists() -> None:
    """PAPER 2a: counted in the official list files, whose columns have this order."""
    assert FINDINGS[:4] == ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration")
    assert FINDINGS[4:8] == ("Mass", "Nodule", "Pneumonia", "Pneumothorax")
    assert FINDINGS[8:] == ("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
    assert parse_findings("Hernia|Mass") == ((0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1), "")


def test_three_channels_repeat_the_grey_image(tmp_path: Path) -> None:
    write_cxr14(tmp_path / "data", SHOWN)
    data = opened(tmp_path / "data", tmp_path / "store", channels=3)
    assert len(data.task.channels) == 3
    for case in data.prepared.facts:
        image = data.prepared.case(case).image()
        assert image.shape == (3, 32, 32)
        np.testing.assert_array_equal(image[0], image[1])
        np.testing.assert_array_equal(image[0], image[2])


def test_images_with_four_channels_are_read_as_grey(tmp_path: Path) -> None:
    write_cxr14(tmp_path, SHOWN)
    write_image(tmp_path / "images" / SHOWN[3].name, draw(SHOWN[3]), "RGBA")
    np.testing.assert_array_equal(CXR14().read(scan(tmp_path).cases[3], tmp_path).image[0], draw(SHOWN[3]))


def test_masks_are_lung_where_they_are_not_black(tmp_path: Path) -> None:
    """Of the image's size or of another; only for images of the same name."""
    write_cxr14(tmp_path / "data", SHOWN)
    mask = np.zeros((40, 36), np.uint8)
    mask[10:30, 4:16] = 255
    write_image(tmp_path / "data/masks" / SHOWN[0].name, mask)
    write_image(tmp_path / "data/masks" / SHOWN[1].name, mask[::2, ::2])
    layout = scan(tmp_path / "data")
    assert [case.label is not None for case in layout.cases] == [True, True] + [False] * 22
    for case in layout.cases[:2]:
        label = CXR14().read(case, tmp_path / "data").label
        assert label is not None
        np.testing.assert_array_equal(label, mask > 0)
    data = opened(tmp_path / "data", tmp_path / "store")
    assert sum(facts.labelled for facts in data.prepared.facts.values()) == 2
    assert data.task.labels == {1: "lung"}

    write_image(tmp_path / "data/masks" / SHOWN[0].name, mask[:, ::2])
    with pytest.raises(InputError, match=r"00000001_000.png: \(40, 18\) pixels have other proportions"):
        CXR14().read(layout.cases[0], tmp_path / "data")


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    write_cxr14(tmp_path, SHOWN)
    Image.fromarray(draw(SHOWN[0]).astype(np.uint16)).save(tmp_path / "images" / SHOWN[0].name)
    with pytest.raises(InputError, match=r"00000001_000\.png: grey of 16 bits"):
        CXR14().read(scan(tmp_path).cases[0], tmp_path)


def test_other_findings_are_another_fingerprint(tmp_path: Path) -> None:
    """Findings are in no file of a case's own; the record of other findings must not be served."""
    write_cxr14(tmp_path / "data", SHOWN)
    first = opened(tmp_path / "data", tmp_path / "store").prepared.fingerprint
    assert opened(tmp_path / "data", tmp_path / "store").prepared.fingerprint == first
    write_table(tmp_path / "data", [Film(1, 0, "Mass", SHOWN[0].test), *SHOWN[1:]])
    assert opened(tmp_path / "data", tmp_path / "store").prepared.fingerprint != first


# --- what can be wrong ------------------------------------------------------------------------------------------------


def test_an_empty_folder_is_told_what_is_expected(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert "neither Data_Entry_2017_v2020.csv nor Data_Entry_2017.csv" in message
    assert "data status cxr14" in message


def test_tables_that_are_none(tmp_path: Path) -> None:
    write_cxr14(tmp_path, SHOWN)
    table = tmp_path / "Data_Entry_2017.csv"
    text = table.read_text()
    for broken, message in (
        ("", "line 1: no column 'Image Index' nor 'Finding Labels' nor 'Patient ID'"),
        (text.replace("Patient ID", "Patient"), "no column 'Patient ID'"),
        (text.splitlines()[0], "no rows"),
        (text + "00000099_000.png\n", "line 26: 1 columns, the header has 12"),
        (text + "scan.dcm,Mass,0,9\n", "line 26: Image Index: 'scan.dcm' is not the name of a .png file"),
    ):
        table.write_text(broken)
        assert message in refused(tmp_path)
    table.write_bytes(text.encode("utf-16"))
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("name", ["train_val_list.txt", "test_list.txt"])
def test_both_lists_are_needed(name: str, tmp_path: Path) -> None:
    write_cxr14(tmp_path, SHOWN)
    (tmp_path / name).unlink()
    assert f"{name}: missing" in refused(tmp_path)


def test_an_image_on_no_list_or_on_both_is_refused(tmp_path: Path) -> None:
    write_cxr14(tmp_path, SHOWN)
    write_lists(tmp_path, SHOWN[5:])
    message = refused(tmp_path)
    assert "5 images (00000001_000.png, 00000001_001.png, 00000002_000.png, ...) in neither" in message
    write_lists(tmp_path, [*SHOWN, Film(1, 0, test=True)])
    assert "test_list.txt: 1 image (00000001_000.png) also in train_val_list.txt" in refused(tmp_path)


def test_a_patient_on_both_sides_is_refused(tmp_path: Path) -> None:
    shown = [*SHOWN, Film(1, 7, test=True), Film(2, 7, test=True), Film(4, 7, test=False)]
    write_cxr14(tmp_path, shown)
    assert "3 patients (1, 2, 4) in both" in refused(tmp_path)


def test_faults_of_single_images_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_cxr14(root, SHOWN, folders=["images_001"])
    strange = [Film(1, 0, "Effusion|Scoliosis"), Film(1, 1, "No Finding|Mass"), Film(2, 0, "")]
    write_table(root, [*strange, *SHOWN[3:], SHOWN[6]])
    (root / "images_001" / SHOWN[8].name).unlink()
    write_image(root / "images_002/images" / SHOWN[10].name, draw(SHOWN[10]))
    layout = scan(root)
    faulty = {0: "unknown 'Scoliosis'", 1: "'No Finding' beside others", 2: "unknown ''", 3: "no row"}
    faulty |= {6: "lines 8 and 26 are both of", 8: "no such image", 10: "also in"}
    assert set(layout.problems) == {SHOWN[number].name[:-4] for number in faulty} - {SHOWN[3].name[:-4]}
    for number, message in faulty.items():
        if number != 3:
            assert message in layout.problems[SHOWN[number].name[:-4]]
            assert SHOWN[number].name in layout.problems[SHOWN[number].name[:-4]]
    with pytest.raises(InputError, match="6 of 24 cases"):
        opened(root, tmp_path / "store")
    data = open_data(
        CXR14(), CXR14Options(size=32), Store(tmp_path / "store"), data=root, demo=False, protocol=None, skip_bad=True
    )
    assert len(data.prepared.facts) == 18


def test_a_list_that_names_what_the_table_lacks(tmp_path: Path) -> None:
    write_cxr14(tmp_path, SHOWN)
    write_table(tmp_path, SHOWN[1:])
    assert scan(tmp_path).problems == {
        "00000001_000": f"{tmp_path}/train_val_list.txt: 00000001_000.png has no row in Data_Entry_2017.csv"
    }


def test_many_faults_of_one_sort_share_a_line(tmp_path: Path) -> None:
    shown = films(30)
    write_cxr14(tmp_path, shown)
    for film in shown[: SINGLY + 1]:
        (tmp_path / "images" / film.name).unlink()
    layout = scan(tmp_path)
    (line,) = layout.problems.values()
    assert line.startswith("21 images missing: 00000001_000.png")
    assert len(layout.cases) == 60 - 21
    for film in shown:
        (tmp_path / "images" / film.name).unlink(missing_ok=True)
    assert "no .png in images/" in refused(tmp_path)


# --- the split --------------------------------------------------------------------------------------------------------


def radiographs(images: list[int], side: str, first: int = 0) -> list[Radiograph]:
    return [
        Radiograph(f"{patient:08d}_{number:03d}", str(patient), (), side=side)
        for patient, count in enumerate(images, first)
        for number in range(count)
    ]


def spread(images: int, patients: int) -> list[int]:
    """Half of the patients have one image, the others more and more."""
    counts = np.ones(patients, int)
    rng = np.random.default_rng(0)
    np.add.at(counts, rng.integers(patients // 2, patients, images - patients), 1)
    return counts.tolist()


@pytest.fixture(scope="module")
def complete() -> tuple[Radiograph, ...]:
    """As many images and patients as published."""
    train = radiographs(spread(86_524, 28_008), "train_val")
    return (*train, *radiographs(spread(25_596, 2_797), "test", 50_000))


def test_a_complete_set_is_divided_as_published(complete: tuple[Radiograph, ...]) -> None:
    """PAPER 2a: 86 524 and 25 596 images; 11 212 of the first are held out."""
    check_sides(complete)
    split = CXR14().split(complete, protocol("clean-v1"))
    assert [len(split.train), len(split.val), len(split.test)] == [75_312, 11_212, 25_596]
    assert_patients_stay_together(split)
    paper = CXR14().split(complete, protocol("paper"))
    assert [len(paper.train), len(paper.val), len(paper.test)] == [86_524, 25_596, 25_596]
    assert paper.val == paper.test


def test_a_complete_set_with_other_lists_is_refused(complete: tuple[Radiograph, ...]) -> None:
    moved = tuple(
        Radiograph(case.id, case.subject, (), side="test") if case.subject == "0" else case for case in complete
    )
    with pytest.raises(InputError) as caught:
        check_sides(moved)
    assert "train_val_list.txt: 86523 images of 28007 patients, not 86524 of 28008" in str(caught.value)


def protocol(name: str) -> object:
    return CXR14().protocols(OPTIONS, Layout(Path("/nowhere"), (), ("X-ray",), {}))[name]()


def assert_patients_stay_together(split: Split) -> None:
    sides = [{case[:8] for case in side} for side in (split.train, split.val, split.test)]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=60))
def test_validation_is_whole_patients_and_never_more_than_its_share(images: list[int]) -> None:
    cases = radiographs(images, "train_val")
    chosen = validation_patients(cases)
    count = sum(images[int(patient)] for patient in chosen)
    share = round(len(cases) * 11_212 / 86_524)
    assert chosen < {str(patient) for patient in range(len(images))}
    assert 1 <= count <= max(share, min(images))
    assert chosen == validation_patients(cases[::-1])
    if images.count(1) > share > 0:
        assert count == share


def test_a_split_needs_both_lists_and_two_patients() -> None:
    test = radiographs([3], "test", 90)
    with pytest.raises(InputError, match=r"no image of train_val_list\.txt"):
        official_split(test, held_out=True)
    with pytest.raises(InputError, match=r"no image of test_list\.txt"):
        official_split(radiographs([3, 2], "train_val"), held_out=True)
    with pytest.raises(InputError, match=r"train_val_list\.txt: 1 patient;"):
        official_split([*radiographs([3], "train_val"), *test], held_out=True)


# --- protocols --------------------------------------------------------------------------------------------------------


def test_protocols_prepare_as_they_say(tmp_path: Path) -> None:
    write_cxr14(tmp_path / "data", SHOWN)
    clean, paper = (opened(tmp_path / "data", tmp_path / "store", name) for name in ("clean-v1", "paper"))
    assert (clean.protocol.selection, paper.protocol.selection) == ("validation", "test")
    assert set(paper.split.train) == set(clean.split.train) | set(clean.split.val)
    case = clean.split.test[0]
    resized = Image.fromarray(draw(SHOWN[6]).astype(np.float32)).resize((32, 32), Image.Resampling.BILINEAR)
    assert case == SHOWN[6].name[:-4]
    expected = (np.asarray(resized) / 255 - 0.5) / 0.225
    np.testing.assert_allclose(clean.prepared.case(case).image()[0], expected, atol=2e-3)
    # Equalised: grey levels are spread evenly.
    levels = np.asarray(paper.prepared.case(case).image()[0], float) * 0.225 + 0.5
    np.testing.assert_allclose(np.quantile(levels, [0.0, 0.25, 0.5, 0.75, 1.0]), [0, 0.25, 0.5, 0.75, 1], atol=0.02)
    assert clean.task.kind == "classification"
    assert clean.task.ndim == 2
    assert clean.task.outputs == 14
    assert clean.task.flip_axes == (1,)  # left and right, of (H, W)


def test_real_images_are_prepared_at_the_size_of_the_paper(tmp_path: Path) -> None:
    layout = Layout(tmp_path, (), ("X-ray",), {})
    for name in ("clean-v1", "paper"):
        assert CXR14().protocols(OPTIONS, layout)[name]().preprocessing.size == (256, 256)
    (tmp_path / STAND_IN).write_text("drawn")
    for options, size in ((OPTIONS, STAND_IN_SIZE), (CXR14Options(size=96), 96)):
        assert CXR14().protocols(options, layout)["clean-v1"]().preprocessing.size == (size, size)


# --- the stand-in -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients at 64 pixels."""
    root = tmp_path_factory.mktemp("cxr14")
    CXR14().write_demo(SMALL, root, lambda done, total: None)
    return root


def test_the_stand_in_has_the_same_bytes_every_time(demo: Path, tmp_path: Path) -> None:
    CXR14().write_demo(SMALL, tmp_path, lambda done, total: None)
    first, second = (
        {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}
        for root in (demo, tmp_path)
    )
    assert first == second
    assert len(first) == 2 * len(scan(demo).cases) + 4


def test_more_patients_leave_the_first_ones_as_they_are(demo: Path, tmp_path: Path) -> None:
    CXR14().write_demo(SMALL.model_copy(update={"subjects": 13}), tmp_path, lambda done, total: None)
    for path in (demo / "images").iterdir():
        assert (tmp_path / "images" / path.name).read_bytes() == path.read_bytes()


def test_the_stand_in_is_read_like_real_data(demo: Path) -> None:
    layout = scan(demo)
    assert layout.problems == {}
    assert {case.subject for case in layout.cases} == {str(number) for number in range(1, 13)}
    for case in layout.cases:
        with Image.open(demo / case.images[0]) as image:
            assert (image.mode, image.size) == ("L", (64, 64))
        raw = CXR14().read(case, demo)
        assert raw.label is not None
        share = raw.label.mean()
        assert 0.15 < share < 0.55
        # Lungs hold air: darker than what is between and below them.
        assert raw.image[0][raw.label == 1].mean() < raw.image[0][20:, 8:-8][raw.label[20:, 8:-8] == 0].mean()
        left, right = raw.label[:, :32].sum(), raw.label[:, 32:].sum()
        assert 0.3 < left / right < 3


def test_the_default_stand_in_scores_most_findings() -> None:
    """At least eight findings have positives and negatives in validation and in test."""
    visits = [visit for number in range(1, OPTIONS.subjects + 1) for visit in plan_visits(number)]
    assert 350 < len(visits) < 600
    cases = []
    for visit in visits:
        findings = tuple(float(finding in visit.findings) for finding in FINDINGS)
        cases.append(Radiograph(visit.name[:-4], str(visit.number), (), None, findings, side=visit.side))
    split = official_split(cases, held_out=True)
    assert_patients_stay_together(split)
    truth = {case.id: case.findings for case in cases}
    scored = [np.ptp(np.array([truth[case] for case in side]), axis=0) > 0 for side in (split.val, split.test)]
    assert (scored[0] & scored[1]).sum() >= 8
    assert np.ptp(np.array([truth[case] for case in split.train]), axis=0).all()
    most = Counter(finding for visit in visits for finding in visit.findings)
    assert most["Infiltration"] > most["Pneumonia"]


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_changes_the_picture_within_the_chest(finding: str) -> None:
    """The same patient on the same day, with the finding and without: by more than a hair, and in its place."""
    for seed in range(3):
        patient = draw_patient(np.random.default_rng([seed]))
        sick, well = (draw_findings(patient, shown, 64, np.random.default_rng(seed)) for shown in ([finding], []))
        change = np.abs(sick.opacity - well.opacity)
        assert np.isfinite(sick.opacity).all()
        assert change.max() > 0.08
        if finding in DENSITIES and finding != "Atelectasis":  # which may lift the diaphragm
            rows, columns = np.nonzero(well.lungs > 0.5)
            inside = np.s_[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3]
            assert change[inside].sum() > 0.95 * change.sum()


def test_what_findings_do_to_shape() -> None:
    """A wide heart is wide; emphysema enlarges the lungs; fluid and collapse take no mask away."""
    for seed in range(4):
        patient = draw_patient(np.random.default_rng([seed]))

        def drawn(*shown: str, patient=patient, seed=seed):  # type: ignore[no-untyped-def]
            return draw_findings(patient, shown, 64, np.random.default_rng([7, seed]))

        well = drawn()
        assert drawn("Cardiomegaly").heart[2] > 1.15 * well.heart[2]
        assert drawn("Emphysema").lungs.sum() > well.lungs.sum()
        side = drawn("Pneumothorax")
        np.testing.assert_array_equal(side.lungs > 0.5, well.lungs > 0.5)


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_fit_what_they_are_for() -> None:
    assert recipe_names(CXR14.recipes) == ["demo", "paper", "smoke"]
    for name, size in (("smoke", STAND_IN_SIZE), ("demo", STAND_IN_SIZE), ("paper", 256)):
        file = load_recipe(CXR14.recipes, name)
        for method in (*file.methods, "mae/vit"):
            pretrain, _, backbone = method.partition("/")
            assert max(file.for_method(pretrain, backbone).roi) <= size
        for kind, options in file.options.items():
            for plugin, values in options.items():
                assert registry().get(kind, plugin).plugin.Options(**values).model_dump(include=set(values))


def test_the_paper_recipe_has_the_papers_numbers() -> None:
    """PAPER 2a, 3a, 3b: iterations 337 an epoch in full batches and one more with the rest."""
    file = load_recipe(CXR14.recipes, "paper")
    recipe = file.for_method("mae", "vit")
    assert recipe.roi == (224, 224)
    assert recipe.pretrain.total_steps(86_524) == 338 * 800
    assert (recipe.pretrain.lr, recipe.pretrain.betas, recipe.pretrain.weight_decay) == (1.5e-4, (0.9, 0.95), 0.05)
    assert recipe.pretrain.warmup * 800 == pytest.approx(40)
    assert recipe.pretrain.area == recipe.finetune.area == (0.08, 1.0)
    tuned = recipe.finetune
    assert (tuned.epochs, tuned.batch, tuned.lr, tuned.betas, tuned.weight_decay) == (
        100,
        256,
        1e-3,
        (0.9, 0.999),
        0.05,
    )
    assert (tuned.layer_decay, tuned.drop_path, tuned.randaugment, tuned.intensity) == (0.75, 0.1, 9, 0.0)
    assert tuned.warmup * 100 == pytest.approx(5)
    assert file.for_plugin("pretrain", "mae")["ratio"] == 0.75
    for method in ("scratch", "imagenet", "moco"):
        assert file.for_method(method, "vit").finetune == tuned


def test_lsae_has_its_own_settings() -> None:
    """PAPER 5b: rate divided by ten at steps 26 000 and 30 000 of 35 000; no augmentation in pre-training."""
    recipe = load_recipe(CXR14.recipes, "paper").for_method("lsae", "texture")
    assert recipe.roi == (256, 256)
    assert recipe.pretrain.area is None
    assert (recipe.pretrain.steps, recipe.pretrain.epochs, recipe.pretrain.betas) == (800_000, None, (0.0, 0.99))
    tuned = recipe.finetune
    assert (tuned.steps, tuned.batch, tuned.optimizer, tuned.lr, tuned.randaugment) == (35_000, 96, "adam", 0.01, None)
    assert [next(step for step in range(35_001) if step >= share * 35_000) for share in tuned.milestones] == [
        26_000,
        30_000,
    ]


def test_moco_is_v2_for_networks_with_batch_norms() -> None:
    """PAPER 5a: SGD at 0.03 for 200 epochs of 256; v3 AdamW at 1.5e-4 x batch / 256 for 300 epochs."""
    file = load_recipe(CXR14.recipes, "paper")
    for backbone in ("resnet18", "resnet50", "densenet121"):
        stage = file.for_method("moco", backbone).pretrain
        assert (stage.optimizer, stage.lr, stage.betas[0], stage.epochs, stage.batch) == ("sgd", 0.03, 0.9, 200, 256)
        starts = [file.for_method(method, backbone).finetune for method in ("moco", "imagenet", "scratch")]
        assert starts[0] == starts[1] == starts[2]
    stage = file.for_method("moco", "vit").pretrain
    assert stage.lr == pytest.approx(1.5e-4 * stage.batch / 256)
    assert (stage.epochs, stage.weight_decay) == (300, 0.1)
