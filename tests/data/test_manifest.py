"""The table beside a weights file that says which cases it was made from."""

from pathlib import Path

import pytest

from mae_bench.data.manifest import manifest_path, read_manifest, write_manifest
from mae_bench.errors import InputError
from mae_bench.record import Identity


def test_what_is_written_is_read(tmp_path: Path) -> None:
    weights = tmp_path / "encoder.safetensors"
    cases = (Identity(subject='odd, "name"\n', sha256="ab" * 32), Identity(subject="", sha256="cd" * 32))
    assert read_manifest(weights) is None
    write_manifest(weights, cases)
    assert read_manifest(weights) == cases
    write_manifest(weights, ())
    assert read_manifest(weights) == ()


def test_hashes_may_be_written_in_capitals(tmp_path: Path) -> None:
    weights = tmp_path / "encoder.safetensors"
    manifest_path(weights).write_text(f"subject,sha256\nx,{'AB' * 32}\n")
    assert read_manifest(weights) == (Identity(subject="x", sha256="ab" * 32),)


@pytest.mark.parametrize(
    "text", [b"", b"patient,sha256\n", b"subject,sha256\nx\n", b"subject,sha256\nx,y,z\n", b"\xff\xfe"]
)
def test_another_table_is_refused(tmp_path: Path, text: bytes) -> None:
    weights = tmp_path / "encoder.safetensors"
    manifest_path(weights).write_bytes(text)
    with pytest.raises(InputError, match=r"encoder\.safetensors\.cases\.csv"):
        read_manifest(weights)
