"""MedMNIST+: the published npz files, what is wrong with other files, and the stand-in."""

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from mae_bench.data.source import Data, open_data
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout
from mae_bench.metrics.classification import mean_auc
from mae_bench.recipe import load_recipe, recipe_names
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench.store import Store
from mae_bench_plugins.datasets.medmnist import MedMNIST, MedMNISTOptions
from mae_bench_plugins.datasets.medmnist import archive as reading
from mae_bench_plugins.datasets.medmnist.catalogue import SIDES, catalogue, file_name
from tests.files.medmnist import COUNTS, arrays, write_medmnist

DATASET = MedMNIST()
# Flag, size, spatial shape with colours, highest label, label columns: one of each kind.
KINDS = [
    ("organamnist", 28, (28, 28), 10, 1),
    ("pathmnist", 64, (64, 64, 3), 8, 1),
    ("chestmnist", 28, (28, 28), 1, 14),
    ("breastmnist", 28, (28, 28), 1, 1),
    ("fracturemnist3d", 28, (28, 28, 28), 2, 1),
]


def options(flag: str = "organamnist", size: int = 28, **rest: Any) -> MedMNISTOptions:
    return MedMNISTOptions(flag=flag, size=size, **({"check_md5": False} | rest))  # type: ignore[arg-type]


def scan(root: Path, chosen: MedMNISTOptions | None = None) -> Layout:
    return DATASET.scan(chosen or options(), root)


def opened(root: Path, store: Path, chosen: MedMNISTOptions) -> Data:
    return open_data(DATASET, chosen, Store(store), data=root, demo=False, protocol=None)


# --- what is published ------------------------------------------------------------------------------------------------


def test_the_catalogue_is_that_of_the_options() -> None:
    assert set(catalogue()) == set(MedMNISTOptions.model_fields["flag"].annotation.__args__)  # type: ignore[union-attr]
    sums = [md5 for facts in catalogue().values() for md5 in facts.md5.values()]
    assert len(set(sums)) == len(sums) == 12 * 4 + 6 * 2
    for flag, facts in catalogue().items():
        assert facts.axes == (3 if flag.endswith("3d") else 2)
        assert set(facts.md5) == ({28, 64} if facts.axes == 3 else {28, 64, 128, 224})
        assert set(facts.samples) == set(SIDES)
        assert set(facts.flips) <= set(range(facts.axes))
        assert len(set(facts.labels)) == len(facts.labels)
        # Where left and right have names, a mirrored image has another label.
        assert not (facts.flips and any("left" in label for label in facts.labels))


def test_totals_are_those_of_the_release() -> None:
    """Counts of release 3.0.2; a slip in one of 54 numbers shows in the sum."""
    total = {2: 0, 3: 0}
    for facts in catalogue().values():
        total[facts.axes] += sum(facts.samples.values())
    assert total == {2: 707_962, 3: 9_996}


def test_file_names() -> None:
    assert [file_name("pathmnist", size) for size in (28, 64, 128, 224)] == [
        "pathmnist.npz",
        "pathmnist_64.npz",
        "pathmnist_128.npz",
        "pathmnist_224.npz",
    ]


def test_a_size_that_is_not_published_is_refused() -> None:
    with pytest.raises(ValidationError, match="organmnist3d is published at 28 and 64 voxels, not at 128"):
        options("organmnist3d", 128)
    with pytest.raises(UsageError, match="published at 28 and 64 voxels"):
        resolve(
            Request("medmnist", "mae", settings={"dataset.flag": "organmnist3d", "dataset.size": "224"}), registry()
        )


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(("flag", "size", "spatial", "highest", "columns"), KINDS)
def test_images_and_labels_come_back(
    flag: str, size: int, spatial: tuple[int, ...], highest: int, columns: int, compressed: bool, tmp_path: Path
) -> None:
    content = arrays(spatial, highest, columns)
    write_medmnist(tmp_path / file_name(flag, size), content, compressed=compressed)
    chosen = options(flag, size)
    layout = scan(tmp_path, chosen)
    protocol = DATASET.protocols(chosen, layout)["official"]()
    task = DATASET.task(chosen, layout, protocol)
    assert len(layout.cases) == sum(COUNTS.values())
    assert layout.problems == {}
    names = catalogue()[flag].labels
    for case in layout.cases:
        side, number = case.id.split("_")
        assert case.subject == case.id
        image = content[f"{side}_images"][int(number)]
        label = content[f"{side}_labels"][int(number)]
        raw = DATASET.read(case, tmp_path)
        assert raw.label is None
        assert raw.affine is None
        assert raw.image.ndim == task.ndim + 1
        for channel, values in enumerate(raw.image):
            np.testing.assert_array_equal(values, image[..., channel] if len(task.channels) == 3 else image)
        present = np.flatnonzero(label) if columns > 1 else [label[0]]
        expected = {names[value] for value in present} & set(task.findings)
        assert {name for name, value in zip(task.findings, case.findings, strict=True) if value} == expected
        assert set(case.findings) <= {0.0, 1.0}


def test_two_classes_are_one_finding() -> None:
    assert catalogue()["pneumoniamnist"].findings == ("pneumonia",)
    assert catalogue()["synapsemnist3d"].findings == ("excitatory synapse",)
    assert len(catalogue()["retinamnist"].findings) == 5
    assert len(catalogue()["chestmnist"].findings) == 14


def test_mean_auc_of_the_findings_is_the_macro_auc_of_medmnist(tmp_path: Path) -> None:
    """MedMNIST's evaluator scores classes one against the rest; of two classes, the score of the second."""
    rng = np.random.default_rng(0)
    for flag, classes in (("organamnist", 11), ("breastmnist", 2)):
        write_medmnist(tmp_path / f"{flag}.npz", arrays((28, 28), classes - 1))
        truth = np.array([case.findings for case in scan(tmp_path, options(flag)).cases])
        labels = np.concatenate([arrays((28, 28), classes - 1)[f"{side}_labels"][:, 0] for side in SIDES])
        score = rng.dirichlet(np.ones(classes), len(labels))
        if classes == 2:
            assert mean_auc(truth, score[:, 1:]) == pytest.approx(roc_auc_score(labels, score[:, 1]))
        else:
            macro = roc_auc_score(labels, score, multi_class="ovr", average="macro")
            assert mean_auc(truth, score) == pytest.approx(macro)


def test_the_split_is_that_of_the_file(tmp_path: Path) -> None:
    write_medmnist(tmp_path / "data" / "organamnist.npz", arrays((28, 28), 10))
    data = opened(tmp_path / "data", tmp_path / "store", options())
    assert {side: len(getattr(data.split, side)) for side in SIDES} == COUNTS
    for side in SIDES:
        assert getattr(data.split, side)[0] == f"{side}_000000"
    assert data.protocol.name == "official"
    assert data.protocol.selection == "validation"


@pytest.mark.parametrize(("flag", "spatial"), [("organamnist", (28, 28)), ("adrenalmnist3d", (28, 28, 28))])
def test_prepared_images_are_the_stored_ones_over_255(flag: str, spatial: tuple[int, ...], tmp_path: Path) -> None:
    """Whole, also where borders are black; and masks too, whose one value inside would be a fault in a scan."""
    content = arrays(spatial, 1)
    for name, values in content.items():
        if name.endswith("images"):
            values[:, :5] = 0
            if flag.startswith("adrenal"):
                values[values > 0] = 255
    write_medmnist(tmp_path / "data" / f"{flag}.npz", content)
    data = opened(tmp_path / "data", tmp_path / "store", options(flag))
    for number in range(COUNTS["val"]):
        image = data.prepared.case(f"val_{number:06d}").image()
        np.testing.assert_allclose(image[0], content["val_images"][number] / 255, atol=5e-4)


def test_the_file_is_opened_once_per_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_medmnist(tmp_path / "data" / "organamnist.npz", arrays((28, 28), 10))
    read: list[str] = []
    array = reading._array
    monkeypatch.setattr(reading, "_array", lambda archive, key: (read.append(key), array(archive, key))[1])
    reading._side.cache_clear()
    opened(tmp_path / "data", tmp_path / "store", options())
    assert sorted(key for key in read if key.endswith("images")) == sorted(f"{side}_images" for side in SIDES)


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "organamnist.npz"
    for seed in (0, 1):
        content = arrays((28, 28), 10, seed=seed)
        write_medmnist(path, content)
        os.utime(path, ns=(seed, seed))
        case = scan(tmp_path).cases[3]
        np.testing.assert_array_equal(DATASET.read(case, tmp_path).image[0], content["train_images"][3])
    last = scan(tmp_path).cases[COUNTS["train"] - 1]
    write_medmnist(path, {name: values[:6] for name, values in content.items()})
    with pytest.raises(InputError, match=r"organamnist.npz: no image train_000011; the file was replaced"):
        DATASET.read(last, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"organamnist.npz: train images cannot be read"):
        DATASET.read(last, tmp_path)


def test_the_checksum_of_a_case_covers_image_and_label(tmp_path: Path) -> None:
    content = arrays((28, 28), 10)
    sums = []
    for change in (None, "val_images", "val_labels"):
        changed = {name: values.copy() for name, values in content.items()}
        if change:
            changed[change][0].flat[0] ^= 1
        write_medmnist(tmp_path / str(change) / "organamnist.npz", changed)
        layout = scan(tmp_path / str(change))
        sums.append([DATASET.read(case, layout.root).sha256 for case in layout.cases[12:14]])
    assert len({first for first, _ in sums}) == 3
    assert len({second for _, second in sums}) == 1


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dermamnist_64.npz: missing") as caught:
        scan(tmp_path, options("dermamnist", 64))
    assert "https://zenodo.org/records/10519652/files/dermamnist_64.npz (CC BY-NC 4.0" in caught.value.hint


def test_a_file_with_another_md5_is_refused_unless_accepted(tmp_path: Path) -> None:
    path = tmp_path / "organamnist.npz"
    write_medmnist(path, arrays((28, 28), 10))
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(InputError) as caught:
        scan(tmp_path, options(check_md5=True))
    assert str(path) in caught.value.what
    assert f"MD5 {found}, expected 68e3f8846a6bd62f0c9bf841c0d9eacc" in caught.value.what
    assert "--set dataset.check_md5=false" in caught.value.hint
    assert len(scan(tmp_path).cases) == sum(COUNTS.values())


def test_a_file_with_the_published_md5_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "organamnist.npz"
    write_medmnist(path, arrays((28, 28), 10))
    facts = catalogue()["organamnist"]
    known = facts.model_copy(update={"md5": {28: hashlib.md5(path.read_bytes()).hexdigest()}})
    monkeypatch.setitem(catalogue(), "organamnist", known)
    assert len(scan(tmp_path, options(check_md5=True)).cases) == sum(COUNTS.values())


FAULTS = [
    ({"val_images": np.zeros((6, 28, 28), np.float32)}, "val_images are float32, expected uint8"),
    ({"val_images": np.zeros((6, 32, 28), np.uint8)}, r"val_images have shape \(6, 32, 28\), expected \(N, 28, 28\)"),
    ({"val_images": np.zeros((6, 28, 28, 3), np.uint8)}, r"val_images have shape \(6, 28, 28, 3\)"),
    ({"val_images": np.zeros((5, 28, 28), np.uint8)}, "5 val_images, but 6 val_labels"),
    ({"val_images": np.array(3, np.uint8)}, r"val_images have shape \(\), expected"),
    (
        {"val_images": np.zeros((0, 28, 28), np.uint8), "val_labels": np.zeros((0, 1), np.uint8)},
        "no val_images",
    ),
    ({"test_labels": np.zeros((8, 1))}, "test_labels are float64, expected whole numbers"),
    ({"test_labels": np.zeros((8, 2), np.uint8)}, r"test_labels have shape \(8, 2\), expected \(N, 1\)"),
    ({"test_labels": np.full((8, 1), 11, np.uint8)}, r"test_labels\[0\] is 11, expected 0 to 10 \(8 such labels\)"),
    ({"test_labels": np.full((8, 1), -1, np.int64)}, r"test_labels\[0\] is -1, expected 0 to 10"),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_every_fault_is_named(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    write_medmnist(tmp_path / "organamnist.npz", arrays((28, 28), 10) | change)
    with pytest.raises(InputError, match=fault) as caught:
        scan(tmp_path)
    assert all(str(tmp_path / "organamnist.npz") in line for line in caught.value.problems)
    assert caught.value.problems


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    bad = {"train_labels": np.full((12, 1), 99, np.uint8), "val_images": np.zeros((6, 28, 28))}
    write_medmnist(tmp_path / "organamnist.npz", arrays((28, 28), 10) | bad)
    with pytest.raises(InputError) as caught:
        scan(tmp_path)
    assert len(caught.value.problems) == 2


def test_labels_that_are_not_binary(tmp_path: Path) -> None:
    content = arrays((28, 28), 1, 14)
    content["train_labels"][4, 2] = 2
    write_medmnist(tmp_path / "chestmnist.npz", content)
    with pytest.raises(InputError, match=r"train_labels\[4\] is 2, expected 0 to 1 \(1 such labels\)"):
        scan(tmp_path, options("chestmnist"))


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    content = arrays((28, 28), 10)
    del content["val_labels"], content["test_images"]
    write_medmnist(tmp_path / "organamnist.npz", content)
    with pytest.raises(InputError, match="not a MedMNIST file: it has no val_labels, test_images"):
        scan(tmp_path)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    """An array of objects is a pickle, and a pickle runs what it likes."""

    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    for key in ("train_images", "train_labels"):
        write_medmnist(
            tmp_path / "organamnist.npz", arrays((28, 28), 10) | {key: np.array([[Trap()]] * 12, dtype=object)}
        )
        with pytest.raises(InputError, match=f"{key} are object"):
            scan(tmp_path)
    assert not (tmp_path / "sprung").exists()


def damaged(content: bytes, kind: str) -> bytes:
    if kind == "cut":
        return content[: len(content) // 2]
    if kind == "text":
        return b"404 not found"
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        return buffer.getvalue()
    if kind == "member":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for side in SIDES:
                for part in ("images", "labels"):
                    archive.writestr(f"{side}_{part}.npy", b"no array")
        return buffer.getvalue()
    # A header that promises more than there is.
    buffer = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 28, 28)})
    with zipfile.ZipFile(buffer, "w") as archive:
        for side in SIDES:
            for part in ("images", "labels"):
                archive.writestr(f"{side}_{part}.npy", header.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["cut", "text", "npy", "member", "promise"])
def test_a_damaged_file_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "organamnist.npz"
    write_medmnist(path, arrays((28, 28), 10))
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(InputError, match=r"organamnist.npz: not a readable npz file"):
        scan(tmp_path)


def test_damaged_pixels_are_named_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data" / "organamnist.npz"
    write_medmnist(path, arrays((28, 28), 10), compressed=False)
    content = bytearray(path.read_bytes())
    content[2000] ^= 255  # within train_images: its checksum no longer fits
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        opened(tmp_path / "data", tmp_path / "store", options())
    assert len(caught.value.problems) == COUNTS["train"]
    assert "organamnist.npz: train images cannot be read: Bad CRC-32" in caught.value.problems[0]


def test_a_side_without_usable_images_is_refused(tmp_path: Path) -> None:
    content = arrays((28, 28), 10)
    content["val_images"][:] = 7
    write_medmnist(tmp_path / "data" / "organamnist.npz", content)
    with pytest.raises(InputError, match="no usable image on the val side"):
        open_data(
            DATASET,
            options(),
            Store(tmp_path / "store"),
            data=tmp_path / "data",
            demo=False,
            protocol=None,
            skip_bad=True,
        )


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_fit_images_of_28_pixels() -> None:
    assert recipe_names(DATASET.recipes) == ["demo", "paper", "smoke"]
    for name in recipe_names(DATASET.recipes):
        assert load_recipe(DATASET.recipes, name).roi == (28, 28)
        for head in (None, "knn", "linear"):
            resolve(Request("medmnist", "mae", head=head, recipe=name), registry())


def test_volumes_need_a_roi_of_three_axes() -> None:
    settings = {"dataset.flag": "organmnist3d"}
    with pytest.raises(UsageError, match=r"--set recipe\.roi: medmnist has 3 axes"):
        resolve(Request("medmnist", "mae", recipe="smoke", settings=settings), registry())
    chosen = resolve(
        Request("medmnist", "mae", recipe="smoke", settings=settings | {"recipe.roi": "[28,28,28]"}), registry()
    )
    assert chosen.recipe.roi == (28, 28, 28)


# --- the stand-in -----------------------------------------------------------------------------------------------------


def test_the_stand_in_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        DATASET.write_demo(options(samples=80), tmp_path / name, lambda done, total: None)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["DEMO", "organamnist.npz"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("flag", sorted(catalogue()))
def test_every_set_has_a_stand_in(flag: str, tmp_path: Path) -> None:
    """Opened by the same reader, MD5 and all; every finding can be scored on every side."""
    chosen = options(flag, samples=80, check_md5=True)
    data = open_data(DATASET, chosen, Store(tmp_path), data=None, demo=True, protocol=None)
    assert data.kind == "demo"
    assert len(data.prepared.facts) == 80
    assert all(case.startswith("DEMO_") for case in data.prepared.facts)
    train = np.array([data.prepared.facts[case].findings for case in data.split.train])
    assert ((train.min(axis=0) == 0) & (train.max(axis=0) == 1)).all()


def test_a_changed_stand_in_is_refused(tmp_path: Path) -> None:
    chosen = options(samples=80, check_md5=True)
    DATASET.write_demo(chosen, tmp_path, lambda done, total: None)
    assert len(scan(tmp_path, chosen).cases) == 80
    write_medmnist(tmp_path / "organamnist.npz", arrays((28, 28), 10))
    with pytest.raises(InputError, match="MD5"):
        scan(tmp_path, chosen)
    (tmp_path / "DEMO").write_bytes(b"")
    with pytest.raises(InputError, match="DEMO: not the note of a stand-in"):
        scan(tmp_path, chosen)


def test_classes_of_the_stand_in_differ_but_not_by_brightness_alone(tmp_path: Path) -> None:
    """Nearest class mean, a crude classifier, is far above chance on the other side and far from perfect."""
    DATASET.write_demo(options(samples=400), tmp_path, lambda done, total: None)
    with np.load(tmp_path / "organamnist.npz", allow_pickle=False) as found:
        images = {side: found[f"{side}_images"].reshape(len(found[f"{side}_labels"]), -1) / 255.0 for side in SIDES}
        labels = {side: found[f"{side}_labels"][:, 0] for side in SIDES}
    means = np.stack([images["train"][labels["train"] == value].mean(0) for value in range(11)])
    guess = ((images["test"][:, None] - means[None]) ** 2).sum(-1).argmin(1)
    assert 2 / 11 < (guess == labels["test"]).mean() < 0.95
