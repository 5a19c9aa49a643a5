"""Every kind of damaged input is refused with the file and the fault named; the other cases are checked as well."""

import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from mae_bench.data.source import Data, open_data
from mae_bench.errors import InputError
from mae_bench.store import Store
from mae_bench_plugins.datasets.msd import MSD, MSDOptions
from tests.files.decathlon import plain_cases, write_msd

SPACING = (1.0, 1.0, 1.0)


class Damage(NamedTuple):
    """do: damages a case (or the description, when `whole`). file: what the message must name. says: a pattern."""

    kind: str
    do: Callable[[Path, str], object]
    file: str
    says: str
    whole: bool = False

    def expected(self, case: str) -> str:
        """The pattern of the line that the damage must lead to."""
        return re.escape(self.file.format(case)) + r"[^\n]*" + self.says.format(case)


# --- ways to damage a file --------------------------------------------------------------------------------------------


def image(root: Path, case: str) -> Path:
    return root / "imagesTr" / f"{case}.nii.gz"


def label(root: Path, case: str) -> Path:
    return root / "labelsTr" / f"{case}.nii.gz"


def raw_bytes(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def unpacked(path: Path, change: Callable[[bytes], bytes]) -> None:
    raw_bytes(path, lambda packed: gzip.compress(change(gzip.decompress(packed))))


def flip_bit(packed: bytes) -> bytes:
    place = len(packed) - 6  # in the checksum
    return packed[:place] + bytes([packed[place] ^ 1]) + packed[place + 1 :]


def header(path: Path, **fields: tuple[int, str, tuple[float, ...]]) -> None:
    """Overwrite header fields, each given as (offset, struct format, values); the format is NIfTI-1's own."""

    def change(raw: bytes) -> bytes:
        found = bytearray(raw)
        for offset, form, values in fields.values():
            struct.pack_into("<" + form, found, offset, *values)
        return bytes(found)

    unpacked(path, change)


def voxels(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Rewrite a file with other voxels."""
    found = nib.load(path)
    array = change(np.asarray(found.dataobj).copy())
    nib.save(nib.Nifti1Image(array, found.affine), path)


def put(array: NDArray[Any], value: float, dtype: str) -> NDArray[Any]:
    array = array.astype(dtype)
    array[tuple(size // 2 for size in array.shape)] = value
    return array


def moved(path: Path) -> None:
    found = nib.load(path)
    affine = found.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(found.dataobj).copy(), affine), path)


def description(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "dataset.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def entry(root: Path, case: str, new: Any) -> None:
    """Replace the training entry of a case."""

    def change(found: dict[str, Any]) -> None:
        pairs = found["training"]
        (place,) = (number for number, pair in enumerate(pairs) if isinstance(pair, dict) and case in pair["image"])
        pairs[place] = new if not isinstance(new, dict) else pairs[place] | new

    description(root, change)


def duplicate(root: Path, case: str) -> None:
    description(root, lambda found: found["training"].append(found["training"][int(case[-2:])]))


def unpacked_and_cut(root: Path, case: str) -> None:
    (root / "imagesTr" / f"{case}.nii").write_bytes(gzip.decompress(image(root, case).read_bytes())[:-100])
    entry(root, case, {"image": f"./imagesTr/{case}.nii"})


def links_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def becomes_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


IMAGE, LABEL, ENTRY, WHOLE = "imagesTr/{}.nii.gz", "labelsTr/{}.nii.gz", "dataset.json: training[", "dataset.json"
NO_FORMS = {"forms": (252, "2h", (0, 0))}

CASE_DAMAGES = [
    # The bytes of a file.
    Damage("truncated gzip", lambda r, c: raw_bytes(image(r, c), lambda b: b[: len(b) // 2]), IMAGE, "truncated gzip"),
    Damage("gzip cut in its header", lambda r, c: raw_bytes(image(r, c), lambda b: b[:5]), IMAGE, "gzip"),
    Damage("wrong checksum", lambda r, c: raw_bytes(image(r, c), flip_bit), IMAGE, "damaged gzip"),
    Damage("empty file", lambda r, c: image(r, c).write_bytes(b""), IMAGE, "empty file"),
    Damage("empty label file", lambda r, c: label(r, c).write_bytes(b""), LABEL, "empty file"),
    Damage("text", lambda r, c: image(r, c).write_text("this is no image\n" * 99), IMAGE, "not a NIfTI file"),
    Damage("packed text", lambda r, c: unpacked(label(r, c), lambda b: b"<html>" * 99), LABEL, "not a NIfTI file"),
    Damage("short header", lambda r, c: unpacked(image(r, c), lambda b: b[:200]), IMAGE, "not a NIfTI file"),
    Damage("zeros", lambda r, c: raw_bytes(image(r, c), lambda b: bytes(4000)), IMAGE, "(not a NIfTI|shape)"),
    Damage("truncated voxels", lambda r, c: unpacked(image(r, c), lambda b: b[:-100]), IMAGE, "truncated"),
    Damage(
        "truncated uncompressed",
        lambda r, c: unpacked_and_cut(r, c),
        "imagesTr/{}.nii:",
        "truncated: .*header declares",
    ),
    Damage("folder", lambda r, c: becomes_folder(image(r, c)), IMAGE, ""),
    # The header.
    Damage(
        "zero spacing",
        lambda r, c: header(image(r, c), pixdim=(80, "3f", (0, 0, 0)), **NO_FORMS),
        IMAGE,
        "zero or undefined voxel spacing",
    ),
    Damage(
        "undefined spacing",
        lambda r, c: header(image(r, c), pixdim=(80, "3f", (float("nan"),) * 3), **NO_FORMS),
        IMAGE,
        "zero or undefined voxel spacing",
    ),
    Damage(
        "zero affine", lambda r, c: header(image(r, c), srow=(280, "12f", (0,) * 12)), IMAGE, "(zero|affine|undefined)"
    ),
    Damage(
        "infinite affine",
        lambda r, c: header(image(r, c), srow=(280, "4f", (float("inf"), 0, 0, 0))),
        IMAGE,
        "(zero|affine|undefined)",
    ),
    Damage(
        "singular affine",
        lambda r, c: header(image(r, c), srow=(280, "12f", (1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0))),
        IMAGE,
        "affine is singular",
    ),
    Damage(
        "impossible shape", lambda r, c: header(image(r, c), dim=(42, "3h", (30000,) * 3)), IMAGE, "impossible shape"
    ),
    Damage("negative shape", lambda r, c: header(image(r, c), dim=(42, "3h", (-4, 5, 6))), IMAGE, "impossible shape"),
    Damage("unknown type", lambda r, c: header(image(r, c), datatype=(70, "h", (9999,))), IMAGE, "not a NIfTI"),
    # What the voxels hold.
    Damage("2-D image", lambda r, c: voxels(image(r, c), lambda a: a[:, :, 0]), IMAGE, "2 dimensions .*expected 3"),
    Damage("5-D image", lambda r, c: voxels(image(r, c), lambda a: a[..., None, None]), IMAGE, "5 dimensions"),
    Damage(
        "wrong number of channels",
        lambda r, c: voxels(image(r, c), lambda a: np.stack([a, a], -1)),
        IMAGE,
        r"2 channels, expected 1 \(MRI\)",
    ),
    Damage(
        "complex", lambda r, c: voxels(image(r, c), lambda a: a.astype("c8")), IMAGE, "complex64 are not intensities"
    ),
    Damage(
        "NaN", lambda r, c: voxels(image(r, c), lambda a: put(a, np.nan, "f4")), IMAGE, "1 voxels are NaN or infinite"
    ),
    Damage(
        "infinite", lambda r, c: voxels(image(r, c), lambda a: put(a, -np.inf, "f8")), IMAGE, "1 voxels are NaN or inf"
    ),
    Damage("beyond float32", lambda r, c: voxels(image(r, c), lambda a: put(a, 1e300, "f8")), IMAGE, ""),
    Damage("constant", lambda r, c: voxels(image(r, c), lambda a: np.full_like(a, 7)), IMAGE, "constant image.* is 7"),
    Damage("constant in air", lambda r, c: voxels(image(r, c), lambda a: (a > 0) * np.int16(3)), IMAGE, "constant"),
    # The label beside the image.
    Damage("label shape", lambda r, c: voxels(label(r, c), lambda a: a[1:]), LABEL, r"shape \(13, 12, 13\) differs"),
    Damage("label in 2-D", lambda r, c: voxels(label(r, c), lambda a: a[0]), LABEL, r"shape \(12, 13\) differs"),
    Damage("label affine", lambda r, c: moved(label(r, c)), LABEL, "affine differs"),
    Damage(
        "undeclared label", lambda r, c: voxels(label(r, c), lambda a: put(a, 9, "u1")), LABEL, r"\[9\] are not decl"
    ),
    Damage(
        "negative label", lambda r, c: voxels(label(r, c), lambda a: put(a, -1, "i2")), LABEL, r"\[-1\] are not decl"
    ),
    Damage("huge label", lambda r, c: voxels(label(r, c), lambda a: put(a, 258, "i2")), LABEL, r"\[258\] are not decl"),
    Damage("half a label", lambda r, c: voxels(label(r, c), lambda a: put(a, 1.5, "f4")), LABEL, "not whole .* 1.5"),
    Damage("NaN label", lambda r, c: voxels(label(r, c), lambda a: put(a, np.nan, "f4")), LABEL, "NaN or infinite"),
    # The description of a case.
    Damage("missing label", lambda r, c: label(r, c).unlink(), LABEL, ""),
    Damage("missing image", lambda r, c: image(r, c).unlink(), IMAGE, ""),
    Damage("duplicate case", duplicate, ENTRY, "{} is listed twice"),
    Damage(
        "path that leaves", lambda r, c: entry(r, c, {"image": f"../{c}.nii.gz"}), ENTRY, "leaves the data directory"
    ),
    Damage(
        "path that leaves by a link",
        lambda r, c: ((r / "out").symlink_to(r.parent), entry(r, c, {"label": f"out/{c}.nii.gz"})),
        ENTRY,
        "leaves the data directory",
    ),
    Damage(
        "absolute path", lambda r, c: entry(r, c, {"image": f"/etc/{c}.nii.gz"}), ENTRY, "leaves the data directory"
    ),
    Damage(
        "path of another kind",
        lambda r, c: entry(r, c, {"image": f"imagesTr/{c}.png"}),
        ENTRY,
        "not the name of a .nii",
    ),
    Damage("path that is a number", lambda r, c: entry(r, c, {"label": 7}), ENTRY, "not the name of a .nii"),
    Damage("path with a zero byte", lambda r, c: entry(r, c, {"image": f"a\0{c}.nii.gz"}), ENTRY, ""),
    Damage("path too long", lambda r, c: entry(r, c, {"image": "a" * 300 + f"{c}.nii.gz"}), ENTRY, ""),
    Damage("link to itself", lambda r, c: links_to_itself(image(r, c)), ENTRY, ""),
    Damage("entry that is text", lambda r, c: entry(r, c, "imagesTr/a.nii.gz"), ENTRY, "must be an object"),
    Damage("entry that is nothing", lambda r, c: entry(r, c, None), ENTRY, "must be an object"),
    Damage("entry that is a list", lambda r, c: entry(r, c, ["a.nii", "b.nii"]), ENTRY, "must be an object"),
]
WHOLE_DAMAGES = [
    Damage("no description", lambda r, c: (r / WHOLE).unlink(), WHOLE, "missing", True),
    Damage("broken JSON", lambda r, c: raw_bytes(r / WHOLE, lambda b: b[:-20]), WHOLE, "broken JSON at line", True),
    Damage("not text", lambda r, c: (r / WHOLE).write_bytes(b"\xff\xfe{}"), WHOLE, "cannot be read", True),
    Damage("a list", lambda r, c: (r / WHOLE).write_text("[]"), WHOLE, "labels", True),
    Damage("no labels", lambda r, c: description(r, lambda d: d.pop("labels")), WHOLE, "labels", True),
    Damage("no modality", lambda r, c: description(r, lambda d: d.pop("modality")), WHOLE, "modality", True),
    Damage("no training", lambda r, c: description(r, lambda d: d.pop("training")), WHOLE, "training", True),
    Damage(
        "training is an object", lambda r, c: description(r, lambda d: d.update(training={})), WHOLE, "training", True
    ),
    Damage("labels is a list", lambda r, c: description(r, lambda d: d.update(labels=["a"])), WHOLE, "labels", True),
    Damage("labels are names", lambda r, c: description(r, lambda d: d.update(labels={"a": 1})), WHOLE, "labels", True),
    Damage("label 256", lambda r, c: description(r, lambda d: d["labels"].update({"256": "a"})), WHOLE, "labels", True),
    Damage(
        "one name twice",
        lambda r, c: description(r, lambda d: d["labels"].update({"3": "inner"})),
        WHOLE,
        "labels",
        True,
    ),
    Damage("no channels", lambda r, c: description(r, lambda d: d.update(modality={})), WHOLE, "modality", True),
    Damage("no cases", lambda r, c: description(r, lambda d: d.update(training=[])), "task", "no cases", True),
]


def attempt(root: Path, store: Path, **kwargs: Any) -> Data:
    """Open with the spacing of all good cases, so that prepared arrays have the same size whatever is damaged."""
    options = MSDOptions(spacing=SPACING)
    return open_data(MSD(), options, Store(store), data=root, demo=False, protocol=None, **kwargs)


def half_written(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.name.endswith(".tmp") or path.name == "stage.json"]


def prepared_cases(store: Path) -> set[str]:
    return {json.loads(path.read_text())["id"] for path in store.glob("prepared/cases/*/case.json")}


@pytest.mark.parametrize("damage", CASE_DAMAGES, ids=lambda damage: damage.kind)
def test_a_damaged_case_is_named_and_can_be_skipped(damage: Damage, tmp_path: Path) -> None:
    root, store = tmp_path / "task", tmp_path / "store"
    cases = plain_cases(4)
    write_msd(root, cases)
    damage.do(root, "case_01")
    with pytest.raises(InputError) as caught:
        attempt(root, store)
    assert caught.value.exit_code == 3
    assert len(caught.value.problems) == 1
    assert re.search(damage.expected("case_01"), str(caught.value)), str(caught.value)
    assert "--skip-bad" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not half_written(store)
    good = {case.id for case in cases} - ({"case_01"} if damage.kind != "duplicate case" else set())
    assert prepared_cases(store) == good

    data = attempt(root, store, skip_bad=True)
    assert set(data.prepared.facts) == good
    assert {*data.split.train, *data.split.val, *data.split.test} == good
    (problem,) = data.prepared.problems.values()
    assert re.search(damage.expected("case_01"), problem)
    with pytest.raises(InputError, match="1 of"):  # what was skipped once is no less refused without the flag
        attempt(root, store)


@pytest.mark.parametrize(
    ("first", "second"),
    list(zip(CASE_DAMAGES, CASE_DAMAGES[1:] + CASE_DAMAGES[:1], strict=True)),
    ids=lambda damage: damage.kind,
)
def test_all_damaged_cases_are_listed_at_once(first: Damage, second: Damage, tmp_path: Path) -> None:
    root, store = tmp_path / "task", tmp_path / "store"
    write_msd(root, plain_cases(4))
    first.do(root, "case_00")
    second.do(root, "case_02")
    with pytest.raises(InputError) as caught:
        attempt(root, store)
    assert len(caught.value.problems) == 2
    for damage, case in ((first, "case_00"), (second, "case_02")):
        assert re.search(damage.expected(case), str(caught.value)), str(caught.value)
    assert prepared_cases(store) >= {"case_01", "case_03"}
    assert not half_written(store)


@pytest.mark.parametrize("damage", WHOLE_DAMAGES, ids=lambda damage: damage.kind)
def test_a_damaged_description_is_named(damage: Damage, tmp_path: Path) -> None:
    """Nothing can be skipped where the cases cannot even be listed."""
    root, store = tmp_path / "task", tmp_path / "store"
    write_msd(root, plain_cases(4))
    damage.do(root, "")
    for skip_bad in (False, True):
        with pytest.raises(InputError) as caught:
            attempt(root, store, skip_bad=skip_bad)
        assert re.search(damage.expected(""), str(caught.value)), str(caught.value)
        assert caught.value.hint or damage.kind != "no description"
    assert not half_written(store)


def test_several_faults_of_one_case_are_all_told(tmp_path: Path) -> None:
    root = tmp_path / "task"
    write_msd(root, plain_cases(4))
    voxels(image(root, "case_03"), lambda a: put(a, np.nan, "f4"))
    moved(label(root, "case_03"))
    voxels(label(root, "case_03"), lambda a: put(a, 5, "u1"))
    with pytest.raises(InputError) as caught:
        attempt(root, tmp_path / "store")
    (line,) = caught.value.problems
    for says in ("imagesTr/case_03.nii.gz", "NaN", "labelsTr/case_03.nii.gz", "affine differs", "[5] are not declared"):
        assert says in line


def test_when_every_case_is_damaged_skipping_helps_nothing(tmp_path: Path) -> None:
    root, store = tmp_path / "task", tmp_path / "store"
    write_msd(root, plain_cases(3))
    for case in ("case_00", "case_01", "case_02"):
        image(root, case).write_bytes(b"")
    for skip_bad in (False, True):
        with pytest.raises(InputError, match="3 of 3 cases") as caught:
            attempt(root, store, skip_bad=skip_bad)
        assert "--skip-bad" not in caught.value.hint
    assert not half_written(store)


def test_a_mended_case_is_taken_up(tmp_path: Path) -> None:
    """The refusal is never cached: the same command works after the file was mended."""
    root, store = tmp_path / "task", tmp_path / "store"
    write_msd(root, plain_cases(4))
    good = image(root, "case_02").read_bytes()
    image(root, "case_02").write_bytes(good[:100])
    with pytest.raises(InputError, match="case_02"):
        attempt(root, store)
    image(root, "case_02").write_bytes(good)
    assert len(attempt(root, store).prepared.facts) == 4


def test_labels_are_checked_even_if_they_are_stored_as_floats(tmp_path: Path) -> None:
    """Whole numbers stored as floats are labels like any other."""
    root = tmp_path / "task"
    write_msd(root, plain_cases(4, label_dtype="float32"))
    assert not attempt(root, tmp_path / "store").prepared.problems
