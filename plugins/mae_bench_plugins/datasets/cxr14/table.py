"""The table of ChestX-ray14 and its two lists: what is known of an image without opening it."""

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mae_bench.errors import InputError
from mae_bench_plugins.datasets.cxr14 import FINDINGS, HINT

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")  # the first one there is read
IMAGE, LABELS, PATIENT = "Image Index", "Finding Labels", "Patient ID"  # the columns that are read
NORMAL = "No Finding"
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
NAMED = 3  # examples in a line that stands for many


class Row(NamedTuple):
    """What the table says of an image. fault: what is wrong with that, empty when nothing is."""

    line: int
    patient: str
    findings: tuple[float, ...]
    fault: str


def read_table(path: Path) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows by image name, and what is wrong with images that have more than one.

    Raises:
        InputError: not readable, or not the columns of this table.
    """
    lines = _csv_lines(path)
    header = [name.strip() for name in next(lines, [])]
    if absent := [name for name in (IMAGE, LABELS, PATIENT) if name not in header]:
        raise InputError(f"{path}: line 1: no column {' nor '.join(map(repr, absent))}; there are {header}", HINT)
    image, labels, patient = (header.index(name) for name in (IMAGE, LABELS, PATIENT))
    rows: dict[str, Row] = {}
    repeated: dict[str, str] = {}
    known: dict[str, tuple[tuple[float, ...], str]] = {}  # a few hundred combinations make up all rows
    for line, cells in enumerate(lines, 2):
        if not any(cells):
            continue
        if len(cells) <= max(image, labels, patient):
            raise InputError(f"{path}: line {line}: {len(cells)} columns, the header has {len(header)}")
        name, text, subject = cells[image].strip(), cells[labels].strip(), cells[patient].strip()
        if not name.endswith(".png"):
            raise InputError(f"{path}: line {line}: {IMAGE}: {name!r} is not the name of a .png file")
        if name in rows:
            repeated[name] = f"{path}: lines {rows[name].line} and {line} are both of {name}"
            continue
        if text not in known:
            known[text] = parse_findings(text)
        findings, fault = known[text]
        fault = fault or ("" if subject else f"{PATIENT}: empty")
        rows[name] = Row(line, subject, findings, fault and f"{path}: line {line} ({name}): {fault}")
    if not rows:
        raise InputError(f"{path}: no rows", HINT)
    return {name: row for name, row in rows.items() if name not in repeated}, repeated


def _csv_lines(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def parse_findings(text: str) -> tuple[tuple[float, ...], str]:
    """`A|B` or `No Finding` as one number per finding, and what is wrong with it, empty when nothing is."""
    names = text.split("|")
    if names == [NORMAL]:
        return (0.0,) * len(FINDINGS), ""
    if strange := [name for name in names if name not in FINDINGS]:
        wrong = f"{NORMAL!r} beside others" if NORMAL in strange else f"unknown {', '.join(map(repr, strange))}"
        return (), f"{LABELS}: {wrong} in {text!r}; known are {', '.join((*FINDINGS, NORMAL))}"
    return tuple(float(finding in names) for finding in FINDINGS), ""


def read_sides(root: Path, images: Collection[str]) -> dict[str, str]:
    """The side, `train_val` or `test`, of every image that a list names.

    Raises:
        InputError: a list is missing; an image is on both; one of `images` is on neither.
    """
    sides: dict[str, str] = {}
    for side, file in LISTS.items():
        path = root / file
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except FileNotFoundError:
            raise InputError(f"{path}: missing; the official lists travel with the data set", HINT) from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        if both := [name for name in names if sides.get(name, side) != side]:
            raise InputError(f"{path}: {some(both, 'image')} also in {LISTS['train_val']}", HINT)
        sides |= dict.fromkeys(names, side)
    if unlisted := [name for name in images if name not in sides]:
        told = f"{some(unlisted, 'image')} in neither {' nor '.join(LISTS.values())}"
        raise InputError(f"{root}: {told}", "take the official lists, or remove these rows of the table")
    return sides


def some(names: Sequence[str], noun: str) -> str:
    """`5 images (a, b, c, ...)`: how many, and the first few."""
    more = ", ..." if len(names) > NAMED else ""
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} ({', '.join(names[:NAMED])}{more})"
