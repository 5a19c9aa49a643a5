"""Collects the finished records of a store into a folder that can be handed in."""

import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from PIL import Image

from mae_bench.errors import UsageError
from mae_bench.leaderboard.board import board_name
from mae_bench.leaderboard.document import NAME
from mae_bench.leaderboard.submission import CURVES, PICTURES
from mae_bench.record import ResultRecord
from mae_bench.store import Store, write_bytes, write_json

POINTS = 400  # rows of a file of curves
SITE_POINTS = 8000  # of a file of curves of sites
WIDEST = 1000  # pixels of a picture's longer side


def add(store: Store, to: Path, board: str | None = None) -> list[Path]:
    """Write `<to>/<board>/records/` from every finished record of the store.

    Args:
        board: name of the folder; without one, data set and protocol make it.

    Returns:
        The records that were written, or were there already.

    Raises:
        UsageError: the store has no finished record, or the board's name cannot be one of a folder.
    """
    if board is not None and not NAME.fullmatch(board):
        raise UsageError(f"--board {board!r}: letters, digits, dots and hyphens make the name of a folder")
    finished = [record for record in store.records() if record.status == "ok"]
    if not finished:
        raise UsageError(f"{store.root}: no finished record; `mae-bench results list` shows what there is")
    return [_add(record, store, to / (board or board_name(record).slug) / "records") for record in finished]


def _add(record: ResultRecord, store: Store, folder: Path) -> Path:
    encoder, model = store.folder("encoders", record.spec.pretrain_key()), store.folder("models", record.key)
    write_bytes(folder / f"{record.key}.cases.csv", store.cases_path(record.key).read_bytes())
    curves = [
        *_losses("pretrain", encoder / "losses.csv"),
        *_losses("finetune", model / "losses.csv"),
        *_selection(store, record.key),
    ]
    if curves:
        rows = [row for curve in curves for row in _thinned(curve, POINTS // len(curves))]
        text = "".join(f"{curve},{step},{value!r}\n" for curve, step, value in rows)
        write_bytes(folder / f"{record.key}.losses.csv", f"{','.join(CURVES)}\n{text}".encode())
    told = [("", encoder / "site_losses.csv"), (" (fine-tuning)", model / "site_losses.csv")]
    if sites := [_site_losses(path, suffix) for suffix, path in told if path.is_file()]:
        text = pd.concat(sites).to_csv(index=False, lineterminator="\n")
        write_bytes(folder / f"{record.key}.site_losses.csv", text.encode())
    for picture in PICTURES:
        for place in (encoder, model):
            if (place / f"{picture}.png").is_file():
                write_bytes(folder / f"{record.key}.{picture}.png", _small(place / f"{picture}.png"))
    path = folder / f"{record.key}.json"
    # Last, so that a record is never there without its files.
    write_json(path, record.to_json())
    return path


Row = tuple[str, int, float]


def _losses(curve: str, path: Path) -> Iterable[list[Row]]:
    if path.is_file():
        table = pd.read_csv(path)
        yield [(curve, int(step), float(loss)) for step, loss in zip(table["step"], table["loss"], strict=True)]


def _site_losses(path: Path, suffix: str) -> pd.DataFrame:
    """Losses of sites, evenly thinned so that all of them together stay a small file; of two stages told apart."""
    table = pd.read_csv(path, converters={"site": str})
    table["site"] += suffix
    return table.iloc[:: max(1, -(-len(table) // SITE_POINTS))]


def _selection(store: Store, key: str) -> Iterable[list[Row]]:
    facts = store.finished("models", key) or {}
    if scores := facts.get("selection"):
        yield [("selection", int(step), float(score)) for step, score in scores]


def _thinned(rows: list[Row], most: int) -> list[Row]:
    """Evenly spaced rows, the last one among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]


def _small(path: Path) -> bytes:
    """The picture as PNG, no side longer than WIDEST."""
    with Image.open(path) as picture:
        if max(picture.size) <= WIDEST and picture.format == "PNG":
            return path.read_bytes()
        picture.thumbnail((WIDEST, WIDEST))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "png", optimize=True)
    return buffer.getvalue()
