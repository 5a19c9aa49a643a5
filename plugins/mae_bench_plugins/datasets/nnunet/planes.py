"""Reads a case: NIfTI as any other, PNG as planes without millimetres."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mae_bench.data.nifti import read_case
from mae_bench.data.png import read_png
from mae_bench.errors import InputError
from mae_bench.interfaces import RawCase, RawImage

GREY, RGB = 0, 2  # colour types of a PNG header
TYPE_AT = 24  # where the header says bits per sample; the colour type follows


def read(case: RawCase, root: Path) -> RawImage:
    """Read one case. Raises InputError naming the file."""
    if not case.images[0].name.endswith(".png"):
        return read_case(case, root)
    assert case.label is not None
    planes, hashes = [], []
    for path in case.images:
        plane, sha256 = _image(root / path)
        planes.append(plane)
        hashes.append(sha256)
        if plane.shape[1:] != planes[0].shape[1:]:
            raise InputError(
                f"{root / path}: size {plane.shape[1:]} differs from {case.images[0]} {planes[0].shape[1:]}"
            )
    if len(planes) > 1 and any(len(plane) > 1 for plane in planes):
        raise InputError(f"{root / case.images[0]}: colour, though each channel has a file of its own")
    label = read_png(root / case.label)
    if _header(root / case.label) not in ((8, GREY), (16, GREY)):
        # Palettes and fewer bits would be turned into brightness, which is not the label's value.
        raise InputError(f"{root / case.label}: a label must be a grey PNG of 8 or 16 bits")
    digest = hashlib.sha256(" ".join([*hashes, label.sha256]).encode()).hexdigest()
    return RawImage(np.concatenate(planes), label.data, None, None, digest)


def _image(path: Path) -> tuple[NDArray[Any], str]:
    """(1, H, W) of a grey file, (3, H, W) of an RGB one, and the file's SHA-256."""
    grey = read_png(path)  # names what is wrong with the file
    _, colour = _header(path)
    if colour == GREY:
        return grey.data[None], grey.sha256
    if colour != RGB:
        raise InputError(f"{path}: neither grey nor RGB: palettes and alpha channels are no channels of an image")
    with Image.open(path, formats=("PNG",)) as image:
        return np.moveaxis(np.array(image), -1, 0), grey.sha256


def _header(path: Path) -> tuple[int, int]:
    """Bits per sample, and the colour type."""
    with path.open("rb") as file:
        head = file.read(TYPE_AT + 2)
    return head[TYPE_AT], head[TYPE_AT + 1]
