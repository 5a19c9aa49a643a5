"""One record as it lies in a contribution, with the files beside it. All of it is a stranger's data.

    <board>/records/<key>.json  <key>.cases.csv  <key>.losses.csv  <key>.site_losses.csv  <key>.<picture>.png

No path is ever taken from a record: files are those that lie beside it under its key.
"""

import csv
import hashlib
import io
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mae_bench.leaderboard.document import KEY, LARGEST, NAME, fault_of_text, parse
from mae_bench.recipe import validation_lines
from mae_bench.record import ResultRecord
from mae_bench.values import digest

PICTURES = ("reconstruction", "overlays")
CURVES = ("curve", "step", "value")
SITE_CURVES = ("round", "site", "step", "loss")
# What may lie beside a record, and how large it may be. A record of 112 120 radiographs takes 20 MB.
LIMITS = {
    ".json": 32 * 2**20,
    ".cases.csv": 64 * 2**20,
    ".losses.csv": 2**20,
    ".site_losses.csv": 8 * 2**20,
    **{f".{picture}.png": 2 * 2**20 for picture in PICTURES},
}
ROWS = 200_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Submission:
    """A record that keeps the laws of its files. board: name of the folder. cases: its per-case scores.

    spec_key: key of its specification. written_key: the same of the words of the file, before defaults are filled in:
    what the version that wrote it gave.
    """

    board: str
    folder: Path
    record: ResultRecord
    cases: pd.DataFrame
    spec_key: str
    written_key: str

    @property
    def key(self) -> str:
        """Key of the record."""
        return self.record.key

    def path(self, suffix: str) -> Path:
        """Where a file of this record lies, whether or not it exists."""
        return self.folder / f"{self.key}{suffix}"

    def has(self, suffix: str) -> bool:
        """Whether there is such a file."""
        return self.path(suffix).is_file()

    def curves(self) -> pd.DataFrame:
        """Losses and selection scores over steps: columns curve, step, value; empty when there are none."""
        return _curves(self.path(".losses.csv"), CURVES, "curve")

    def site_curves(self) -> pd.DataFrame:
        """Losses of the sites of a federation: columns round, site, step, loss; empty when there are none."""
        return _curves(self.path(".site_losses.csv"), SITE_CURVES, "site")


class Refused(ValueError):
    """Files of one record are not what they should be. problems: one line per fault, each naming its file."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


def record_folders(root: Path) -> dict[str, Path]:
    """Folders of records by board, under a folder of boards, or of one board."""
    if (root / "records").is_dir():
        return {root.resolve().name: root / "records"}
    return {path.parent.name: path for path in sorted(root.glob("*/records")) if path.is_dir()}


def strangers(folder: Path) -> dict[Path, str]:
    """What is wrong in a folder of records: files that are not plain, too large, or of no record."""
    found = {}
    for path in sorted(folder.iterdir()):
        key, dot, rest = path.name.partition(".")
        state = path.lstat()
        if not KEY.fullmatch(key) or dot + rest not in LIMITS:
            found[path] = f"no file of a record; there are <key>{', <key>'.join(LIMITS)}"
        elif not stat.S_ISREG(state.st_mode):
            found[path] = "not a plain file"
        elif state.st_size > LIMITS[dot + rest]:
            found[path] = f"{state.st_size} bytes; at most {LIMITS[dot + rest]}"
        elif rest != "json" and not (folder / f"{key}.json").is_file():
            found[path] = f"there is no record {key}.json"
    return found


def read_submission(board: str, path: Path) -> Submission:
    """Read `<key>.json` and the files beside it. `strangers` found nothing wrong with them.

    Raises:
        Refused: with every fault.
    """
    try:
        document = parse(path.read_bytes())
        record = ResultRecord.model_validate(document)
    except ValidationError as error:
        raise Refused([f"{path}: {line[:300]}" for line in validation_lines(error)[:20]]) from None
    except ValueError as error:
        raise Refused([f"{path}: {error}"]) from None
    if faults := [f"{path}: {fault}" for fault in _names(record)]:
        raise Refused(faults)
    cases_path = path.with_suffix(".cases.csv")
    faults = []
    cases = pd.DataFrame({"case": []})
    if record.status == "ok":
        try:
            cases = _cases(cases_path, record)
        except ValueError as error:
            faults.append(f"{cases_path}: {error}")
    key = record.spec.key()
    written = key if key == record.key else _written_key(document["spec"])
    found = Submission(board, path.parent, record, cases, key, written)
    for read, suffix in ((found.curves, ".losses.csv"), (found.site_curves, ".site_losses.csv")):
        try:
            if found.has(suffix):
                read()
        except ValueError as error:
            faults.append(f"{found.path(suffix)}: {error}")
    faults += [
        f"{found.path(f'.{picture}.png')}: not a PNG image"
        for picture in PICTURES
        if found.has(f".{picture}.png") and not _is_png(found.path(f".{picture}.png"))
    ]
    if faults:
        raise Refused(faults)
    return found


def _names(record: ResultRecord) -> Iterator[str]:
    """Faults of names that become names of files, pages and flags."""
    spec = record.spec
    for place in ("dataset", "protocol", "backbone", "pretrain", "head", "recipe"):
        if not NAME.fullmatch(getattr(spec, place).name):
            yield f"spec.{place}.name: {getattr(spec, place).name[:80]!r} is no name of a plugin or a set of rules"
    for place in ("dataset", "backbone", "pretrain", "head"):
        for option in getattr(spec, place).options:
            if not option.isidentifier() or not option.isascii():
                yield f"spec.{place}.options: {option[:80]!r} is no name of an option"
    if not KEY.fullmatch(record.key):
        yield f"key: {record.key[:80]!r} is no key"


def _written_key(spec: dict[str, Any]) -> str:
    parts = {name: dict(value) if isinstance(value, dict) else value for name, value in spec.items()}
    for place in ("protocol", "recipe"):
        parts[place].pop("summary", None)
    return digest(parts)


def _cases(path: Path, record: ResultRecord) -> pd.DataFrame:
    if record.cases is None:
        raise ValueError(f"the record {record.key} names no per-case scores")
    if record.cases.file != path.name:
        raise ValueError(f"the record names another file, {record.cases.file[:80]!r}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError("missing") from None
    if hashlib.sha256(data).hexdigest() != record.cases.sha256:
        raise ValueError("its SHA-256 is not the one in the record")
    table = _table(data)
    if not len(table.columns) or table.columns[0] != "case":
        raise ValueError("its first column must be `case`")
    if list(table["case"]) != list(record.data.split.test):
        raise ValueError("its cases are not the test cases of the record")
    return table


def _curves(path: Path, columns: tuple[str, ...], text: str) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame({name: [] for name in columns})
    table = _table(path.read_bytes(), text)
    if tuple(table.columns) != columns:
        raise ValueError(f"its columns must be {', '.join(columns)}")
    if table.isna().to_numpy().any():
        raise ValueError("it has empty cells")
    return table


def _table(data: bytes, text: str = "case") -> pd.DataFrame:
    """A CSV of numbers, with one column of texts. An empty cell is NaN. Raises ValueError."""
    try:
        names, *rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"not a table of numbers: {error}") from None
    if len(set(names)) < len(names) or len(rows) > ROWS:
        raise ValueError(f"a column is there twice, or there are more than {ROWS} rows")
    if any(len(row) != len(names) for row in rows):
        raise ValueError("its rows are not as long as its header")
    # Cell by cell: for the few rows of most records, a tenth of the time of a reader made for large files.
    columns: dict[str, Any] = {}
    for name, cells in zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True):
        if fault := next(filter(None, map(fault_of_text, (name, *(cells if name == text else ())))), None):
            raise ValueError(f"it has {fault}")
        columns[name] = list(cells) if name == text else np.array([float(cell or "nan") for cell in cells])
        if name != text and (np.isinf(columns[name]).any() or (np.abs(columns[name]) > LARGEST).any()):
            raise ValueError("it has numbers that are too large")
    return pd.DataFrame(columns)


def _is_png(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(24)
    # Width and height come first in a PNG: a picture that would fill the memory of a browser is none of ours.
    sides = [int.from_bytes(head[start : start + 4], "big") for start in (16, 20)]
    return head.startswith(SIGNATURE) and head[12:16] == b"IHDR" and all(0 < side <= 4000 for side in sides)
