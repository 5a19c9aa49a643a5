"""Reads PNG files as grey images, with every fault named."""

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mae_bench.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"IEND\xaeB`\x82"  # type and checksum of the last chunk
HEADER = 33  # bytes of the signature and the first chunk
PIXEL_LIMIT = 1 << 26  # a damaged header may claim anything; the largest radiographs have some 2^24 pixels
GREY = 0  # colour type


class Png(NamedTuple):
    """data: (H, W), uint8 or uint16. sha256: of the file's bytes."""

    data: NDArray[Any]
    sha256: str


def read_png(path: Path) -> Png:
    """Read a PNG file as one grey plane.

    Grey of 16 bits stays uint16; grey of 1, 2 or 4 bits is spread over 0 to 255. Colours, also those of a palette,
    become the luma of ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B, which leaves equal channels as they are); an alpha
    channel is ignored, not blended.

    Raises:
        InputError: missing, empty, truncated, not a PNG, of impossible size, or colour of 16 bits. Names the file.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not raw:
        raise InputError(f"{path}: empty file")
    if not raw.startswith(SIGNATURE[: len(raw)]):
        raise InputError(f"{path}: not a PNG file")
    if len(raw) < HEADER or raw.rfind(END) < 0:
        raise InputError(f"{path}: truncated PNG file")
    if raw[12:16] != b"IHDR":
        raise InputError(f"{path}: damaged PNG file: it does not begin with a header")
    # Checked before Pillow sees the file, for it reserves memory for whatever size the header claims.
    width, height = int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")
    if not 0 < width * height <= PIXEL_LIMIT:
        raise InputError(f"{path}: impossible size {width} x {height}")
    bits, colour = raw[24], raw[25]
    if bits == 16 and colour != GREY:
        raise InputError(f"{path}: colour of 16 bits, expected grey, or colour of 8 bits")
    try:
        with Image.open(io.BytesIO(raw), formats=("PNG",)) as image:
            image.load()
            data = np.array(image if bits == 16 else _grey(image))
    except Exception as error:  # Pillow raises many kinds for a damaged file; all mean the same here
        raise InputError(f"{path}: damaged PNG file: {error}") from error
    return Png(data, hashlib.sha256(raw).hexdigest())


def _grey(image: Image.Image) -> Image.Image:
    """8-bit luma. By way of RGBA, since a palette may hold its transparency in its own way."""
    if image.mode == "L":
        return image
    return (image.convert("RGBA") if image.mode == "P" else image).convert("L")
