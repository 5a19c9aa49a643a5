"""Reads the npz files of MedMNIST: {train,val,test}_images (N, H, W[, 3]) or (N, D, H, W), and _labels (N, K)."""

import hashlib
import math
import threading
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mae_bench.errors import InputError
from mae_bench.interfaces import Layout, RawCase, RawImage
from mae_bench.task import Split
from mae_bench_plugins.datasets.medmnist.catalogue import SIDES, Published, catalogue, file_name

DEMO = "DEMO"  # a file beside the stand-in, with its MD5 in the form of md5sum
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, NotImplementedError, RuntimeError, MemoryError)

_reading = threading.Lock()


class Stamp(NamedTuple):
    """A file as it is now: with another time or length it is another file."""

    path: Path
    mtime_ns: int
    length: int


def stamp(path: Path) -> Stamp:
    """Raises FileNotFoundError when there is none."""
    state = path.stat()
    return Stamp(path, state.st_mtime_ns, state.st_size)


def scan(root: Path, flag: str, size: int, *, check_md5: bool) -> Layout:
    """Check the file and list its images; only labels and headers are read.

    Raises:
        InputError: it is missing, is not the published file, or does not hold what it should.
    """
    facts, path = catalogue()[flag], root / file_name(flag, size)
    try:
        file = stamp(path)
    except OSError:
        raise InputError(
            f"{path}: missing",
            f"get https://zenodo.org/records/10519652/files/{path.name} ({facts.licence}, {facts.samples['train']} "
            f"training images) and put it there, or choose --set dataset.flag=... and dataset.size=...",
        ) from None
    demo = (root / DEMO).is_file()
    if check_md5:
        expected = _noted_md5(root / DEMO) if demo else facts.md5[size]
        if (found := file_md5(file)) != expected:
            raise InputError(
                f"{path}: MD5 {found}, expected {expected}",
                "download it again, or accept it as it is with --set dataset.check_md5=false",
            )
    labels = _checked(path, facts, size)
    cases = tuple(
        # Named as demo where they are, so that no record of them can pass for one of real images.
        RawCase(f"{'DEMO_' if demo else ''}{side}_{number:06d}", f"{side}_{number:06d}", (Path(path.name),), None, row)
        for side in SIDES
        for number, row in enumerate(_findings(labels[side], facts))
    )
    return Layout(root, cases, CHANNELS[facts.channels], {})


def read(case: RawCase, root: Path) -> RawImage:
    """One image as (C, *spatial), its side of the file being read once and kept.

    Raises:
        InputError: the file is damaged, or was replaced since it was listed.
    """
    path = root / case.images[0]
    side, number = case.id.removeprefix(f"{DEMO}_").split("_")
    # One thread reads, the others wait for it: a side may be gigabytes.
    with _reading:
        try:
            images, labels = _side(stamp(path), side)
        except (*BROKEN, KeyError) as error:
            raise InputError(f"{path}: {side} images cannot be read: {error}", "download it again") from error
    if int(number) >= len(images):
        raise InputError(f"{path}: no image {case.id}; the file was replaced while it was being read")
    image, label = images[int(number)], labels[int(number)]
    sha256 = hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
    facts = catalogue()[path.stem.partition("_")[0]]
    image = np.moveaxis(image, -1, 0) if facts.channels == 3 else image[None]
    if facts.shape:
        # A mask has one value inside, which in a scan would mean a damaged file: one higher, outside is not 0, and
        # the protocol's window begins at 1.
        image = image.astype(np.int16) + np.int16(1)
    return RawImage(image, None, None, None, sha256)


def split(cases: tuple[RawCase, ...]) -> Split:
    """By the side that is in each case's name."""
    of: dict[str, list[str]] = {side: [] for side in SIDES}
    for case in cases:
        of[case.id.removeprefix(f"{DEMO}_").partition("_")[0]].append(case.id)
    if empty := [side for side, found in of.items() if not found]:
        raise InputError(f"no usable image on the {' and '.join(empty)} side")
    return Split(train=tuple(of["train"]), val=tuple(of["val"]), test=tuple(of["test"]))


@lru_cache(maxsize=8)
def file_md5(file: Stamp) -> str:
    """MD5 of a file, in hexadecimal; remembered while the file stays as it is."""
    with file.path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


# Two, because threads may still read the last training images when others begin with validation.
@lru_cache(maxsize=2)
def _side(file: Stamp, side: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    with zipfile.ZipFile(file.path) as archive:
        return _array(archive, f"{side}_images"), _array(archive, f"{side}_labels")


def _array(archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    with archive.open(f"{key}.npy") as member:
        found: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return found


def _header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, without its values. Raises ValueError if it is longer or shorter than they say."""
    with archive.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(member)
        length = member.tell() + math.prod(shape) * dtype.itemsize
    stored = archive.getinfo(f"{key}.npy").file_size
    if stored != length and not dtype.hasobject:
        raise ValueError(f"{key} has {stored} bytes, its header says {length}")
    return shape, dtype


def _noted_md5(note: Path) -> str:
    try:
        return note.read_text().split()[0]
    except (OSError, ValueError, IndexError):
        raise InputError(f"{note}: not the note of a stand-in", "remove it, or write the stand-in again") from None


def _checked(path: Path, facts: Published, size: int) -> dict[str, NDArray[Any]]:
    """The label tables of all sides. Raises InputError with every fault that was found."""
    labels: dict[str, NDArray[Any]] = {}
    faults: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            wanted = [f"{side}_{part}" for side in SIDES for part in ("images", "labels")]
            if missing := [key for key in wanted if f"{key}.npy" not in names]:
                raise InputError(f"{path}: not a MedMNIST file: it has no {', '.join(missing)}")
            for side in SIDES:
                found = _side_faults(archive, side, facts, size)
                faults += [f"{path}: {fault}" for fault in found]
                if not found:
                    labels[side] = _array(archive, f"{side}_labels")
                    faults += [f"{path}: {fault}" for fault in _range_faults(labels[side], side, facts)]
    except BROKEN as error:
        raise InputError(f"{path}: not a readable npz file: {error}", "download it again") from error
    if faults:
        raise InputError(f"{path}: not as MedMNIST describes {path.stem}", "download it again", faults)
    return labels


def _side_faults(archive: zipfile.ZipFile, side: str, facts: Published, size: int) -> list[str]:
    (shape, dtype), (rows, kind) = _header(archive, f"{side}_images"), _header(archive, f"{side}_labels")
    expected = (size,) * facts.axes + ((3,) if facts.channels == 3 else ())
    faults = []
    if dtype != np.uint8:
        faults.append(f"{side}_images are {dtype}, expected uint8")
    if not shape or shape[1:] != expected:
        faults.append(f"{side}_images have shape {shape}, expected (N, {', '.join(map(str, expected))})")
    if kind.kind not in "ui":
        faults.append(f"{side}_labels are {kind}, expected whole numbers")
    if len(rows) != 2 or rows[1] != facts.label_columns:
        faults.append(f"{side}_labels have shape {rows}, expected (N, {facts.label_columns})")
    if shape and rows and shape[0] != rows[0]:
        faults.append(f"{shape[0]} {side}_images, but {rows[0]} {side}_labels")
    if shape and not shape[0]:
        faults.append(f"no {side}_images")
    return faults


def _range_faults(labels: NDArray[Any], side: str, facts: Published) -> list[str]:
    highest = 1 if facts.multi_label else len(facts.labels) - 1
    wrong = np.argwhere((labels < 0) | (labels > highest))
    if not len(wrong):
        return []
    row, column = wrong[0]
    return [f"{side}_labels[{row}] is {labels[row, column]}, expected 0 to {highest} ({len(wrong)} such labels)"]


def _findings(labels: NDArray[Any], facts: Published) -> list[tuple[float, ...]]:
    """Rows of zeros and ones, in the order of `Published.findings`."""
    if facts.multi_label:
        table = labels.astype(float)
    else:
        first = len(facts.labels) - len(facts.findings)
        table = (labels == np.arange(first, len(facts.labels))).astype(float)
    return [tuple(row) for row in table.tolist()]
