"""PNG files as Pillow writes them, and every way in which they can be broken."""

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mae_bench.data.png import PIXEL_LIMIT, read_png
from mae_bench.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (23, 31), dtype=np.uint8)
LUMA = np.array([0.299, 0.587, 0.114])


def write(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def header_of(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    """A PNG file by hand: header, one empty row of data, end."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@settings(deadline=None, max_examples=25)
@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_grey_images_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = write(tmp_path_factory.mktemp("png") / "a.png", array)
    found = read_png(path)
    assert found.data.dtype == array.dtype
    np.testing.assert_array_equal(found.data, array)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_equal_channels_are_the_grey_image(mode: str, tmp_path: Path) -> None:
    """Some images of ChestX-ray14 have four channels: the grey image three times, and an alpha."""
    np.testing.assert_array_equal(read_png(write(tmp_path / "a.png", GREY, mode)).data, GREY)


def test_alpha_is_ignored(tmp_path: Path) -> None:
    array = np.stack([GREY, GREY, GREY, RNG.integers(0, 256, GREY.shape, dtype=np.uint8)], axis=-1)
    np.testing.assert_array_equal(read_png(write(tmp_path / "a.png", array)).data, GREY)


def test_colours_become_their_luma(tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = read_png(write(tmp_path / "a.png", array)).data
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, array @ LUMA, atol=0.51)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(8))])
def test_a_palette_is_looked_up(transparency: int | bytes | None, tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (8, 3), dtype=np.uint8)
    places = RNG.integers(0, 8, (12, 9), dtype=np.uint8)
    image = Image.fromarray(places)
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    found = read_png(tmp_path / "a.png").data
    np.testing.assert_allclose(found, colours[places] @ LUMA, atol=0.51)


def test_one_bit_is_spread_over_the_range(tmp_path: Path) -> None:
    mask = GREY > 100
    np.testing.assert_array_equal(read_png(write(tmp_path / "a.png", mask)).data, mask * np.uint8(255))


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_png(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "missing" in refused(tmp_path / "gone.png")
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "empty file"),
        (b"GIF89a" + bytes(40), "not a PNG file"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "not a PNG file"),
        (b"\x89PN", "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60) + b"IEND\xaeB`\x82", "does not begin with a header"),
        (header_of(0, 7), "impossible size 0 x 7"),
        (header_of(7, 0), "impossible size 7 x 0"),
        (header_of(1 << 20, 1 << 20), "impossible size"),
        (header_of(PIXEL_LIMIT + 1, 1), "impossible size"),
        (header_of(4, 4, bits=16, colour=2), "colour of 16 bits"),
        (header_of(4, 4, bits=3), "damaged"),
        (header_of(4, 4), "damaged"),
    ],
)
def test_what_is_no_usable_image_is_named(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw)
    assert message in refused(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    raw = write(tmp_path / "whole.png", GREY).read_bytes()
    path = tmp_path / "cut.png"
    for length in range(1, len(raw), 7):
        path.write_bytes(raw[:length])
        assert "truncated" in refused(path)
    path.write_bytes(raw[:-1])
    assert "truncated" in refused(path)


def test_damaged_pixels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", GREY)
    raw = bytearray(path.read_bytes())
    middle = raw.index(b"IDAT") + 40
    raw[middle : middle + 20] = bytes(20)
    path.write_bytes(raw)
    assert "damaged" in refused(path)
