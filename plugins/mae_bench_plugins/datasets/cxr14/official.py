"""The layout in which the NIH gives out ChestX-ray14: a table, two lists, and folders of PNG files."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mae_bench.data.png import read_png
from mae_bench.errors import InputError
from mae_bench.interfaces import Layout, RawCase, RawImage
from mae_bench_plugins.datasets.cxr14 import HINT, MASK_LABELS
from mae_bench_plugins.datasets.cxr14.sides import Radiograph, check_sides
from mae_bench_plugins.datasets.cxr14.table import LISTS, NAMED, TABLES, read_sides, read_table

NUMBERED = [f"images_{number:03d}" for number in range(1, 13)]
IMAGES = (Path("images"), *(Path(name) / inner for name in NUMBERED for inner in ("images", "")))
MASKS = Path("masks")
SINGLY = 20  # faults of one sort that get a line each; more share one
ASPECT = 0.02  # by how much the proportions of a mask may differ from those of its image


def scan(root: Path, channels: int) -> Layout:
    """List the radiographs that the table names. No image is opened, and each folder is listed once.

    Raises:
        InputError: table, lists or images are missing or not what they should be; an image that no list names, or
            both; a patient on both sides; a complete set with other lists than the published. What is wrong with
            single images is in `Layout.problems`, where many faults of one sort share an entry.
    """
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise InputError(f"{root}: neither {' nor '.join(TABLES)}", HINT)
    rows, faults = read_table(table)
    sides = read_sides(root, [*rows, *faults])
    files: dict[str, Path] = {}
    for folder in IMAGES:
        for name, path in _listing(root, folder).items():
            if files.setdefault(name, path) != path:
                faults[name] = f"{root / path}: also in {root / files[name].parent}"
    if not files:
        raise InputError(f"{root}: no .png in images/, nor in {NUMBERED[0]}/ to {NUMBERED[-1]}/", HINT)
    masks = _listing(root, MASKS)
    faults |= {name: row.fault for name, row in rows.items() if row.fault}
    missing = {name: f"{name}: no such image in {root}" for name in rows if name not in files and name not in faults}
    unused = {
        name: f"{root / LISTS[side]}: {name} has no row in {table.name}"
        for name, side in sides.items()
        if name not in rows and name not in faults
    }
    cases = tuple(
        Radiograph(name[:-4], row.patient, (files[name],) * channels, masks.get(name), row.findings, side=sides[name])
        for name, row in rows.items()
        if name not in faults and name not in missing
    )
    check_sides(cases)
    problems = _summarised("faulty rows or files", faults)
    problems |= _summarised("images missing", missing) | _summarised("listed images without a row", unused)
    return Layout(root, cases, ("X-ray",) * channels, dict(MASK_LABELS), problems)


def _listing(root: Path, folder: Path) -> dict[str, Path]:
    """The .png files of a folder by name, relative to `root`; none when there is no such folder."""
    try:
        return {name: folder / name for name in sorted(os.listdir(root / folder)) if name.endswith(".png")}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{root / folder}: cannot be listed: {error.strerror}") from error


def _summarised(sort: str, faults: dict[str, str]) -> dict[str, str]:
    if len(faults) <= SINGLY:
        return {name.removesuffix(".png"): text for name, text in faults.items()}
    return {sort: f"{len(faults)} {sort}: {'; '.join(list(faults.values())[:NAMED])}; ..."}


def read_case(case: RawCase, root: Path) -> RawImage:
    """Read a radiograph (C, H, W), and its lung mask (H, W) where there is one, in which lung is 1.

    A mask of another size covers the same picture, and is brought to the size of the image. The fingerprint includes
    the findings, which are in no file of the case's own.

    Raises:
        InputError: a file is unusable, has 16 bits, or the mask has other proportions. Names the file.
    """
    found = read_png(root / case.images[0])
    if found.data.dtype != np.uint8:
        raise InputError(f"{root / case.images[0]}: grey of 16 bits; the images of ChestX-ray14 have 8")
    image = np.broadcast_to(found.data, (len(case.images), *found.data.shape))
    hashes, mask = [found.sha256, repr(case.findings)], None
    if case.label is not None:
        drawn = read_png(root / case.label)
        mask = _fitted((drawn.data > 0).astype(np.uint8), found.data.shape, root / case.label)
        hashes.append(drawn.sha256)
    return RawImage(image, mask, None, None, hashlib.sha256(" ".join(hashes).encode()).hexdigest())


def _fitted(mask: NDArray[np.uint8], shape: tuple[Any, ...], path: Path) -> NDArray[np.uint8]:
    if abs(mask.shape[0] * shape[1] / (mask.shape[1] * shape[0]) - 1) > ASPECT:
        raise InputError(f"{path}: {mask.shape} pixels have other proportions than the image, {shape}")
    if mask.shape == shape:
        return mask
    return np.asarray(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST))
