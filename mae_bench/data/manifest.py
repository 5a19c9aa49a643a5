"""Which cases weights were made from: a table beside the weights file, so that others can look for their test cases.

`encoder.safetensors` has `encoder.safetensors.cases.csv`, with the columns subject and sha256. Either may be empty: a
patient is found again by the one, a file by the other (the hash is that of the bytes of all files of a case, or of its
one file).
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from mae_bench.errors import InputError
from mae_bench.record import Identity
from mae_bench.store import write_bytes

COLUMNS = ["subject", "sha256"]


def manifest_path(weights: Path) -> Path:
    """Where the manifest of a weights file lies, whether or not there is one."""
    return weights.with_name(f"{weights.name}.cases.csv")


def write_manifest(weights: Path, cases: Iterable[Identity]) -> None:
    """Say which cases a weights file was made from."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows((case.subject, case.sha256) for case in cases)
    write_bytes(manifest_path(weights), text.getvalue().encode())


def carry_manifest(source: Path, copy: Path) -> None:
    """Let a copy of weights be known by the cases of its source, and by no others that an older file may have had.

    Raises:
        InputError: the manifest of the source is not such a table.
    """
    cases = read_manifest(source)
    if cases is None:
        manifest_path(copy).unlink(missing_ok=True)
    else:
        write_manifest(copy, cases)


def read_manifest(weights: Path) -> tuple[Identity, ...] | None:
    """The cases that a weights file was made from, or None when nothing beside it says so.

    Raises:
        InputError: the manifest is not such a table.
    """
    path = manifest_path(weights)
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a table of cases: {error}") from error
    if header != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise InputError(f"{path}: its columns must be {' and '.join(COLUMNS)}")
    return tuple(Identity(subject=subject, sha256=sha256.lower()) for subject, sha256 in rows)
