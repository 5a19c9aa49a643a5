"""Builds everything that people read from a folder of records: CSV, Markdown and a static site."""

import csv
import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mae_bench.errors import InputError
from mae_bench.leaderboard.board import Board, Section, make_boards
from mae_bench.leaderboard.check import check, refuse
from mae_bench.leaderboard.federations import TITLES, Line, compare_sites
from mae_bench.leaderboard.figures import board_figures, record_figures
from mae_bench.leaderboard.published import published_files, read_published
from mae_bench.leaderboard.ranking import Row, ranked
from mae_bench.leaderboard.site import Site
from mae_bench.leaderboard.submission import LIMITS, Submission
from mae_bench.leaderboard.table import Table, hours_of, make_table, rank_text, sites_text, unit_of
from mae_bench.processes import no_collector
from mae_bench.store import write_json

MARK = "leaderboard.json"  # written last: a folder that has it is a site, and may be replaced by a newer one


@dataclass(frozen=True)
class Built:
    """What was written."""

    boards: list[str]
    records: int


def build(root: Path, out: Path) -> Built:
    """Write the site of all boards under `root` to `out`, whole or not at all.

    Raises:
        InputError: a record breaks a rule (each is named; nothing is written), or `out` holds something else.
    """
    # What is read stays to the end: looking for garbage in it again and again takes a sixth of the time.
    with no_collector():
        return _build(root, out)


def _build(root: Path, out: Path) -> Built:
    # Scores are made again for everything that is shown; intervals only by `check`, which has the time.
    checked = check(root, intervals=False)
    refuse(checked)
    if out.exists() and not (out / MARK).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: there already, and no site that was built here", "give --out another folder")
    boards = make_boards(checked.submissions)
    published = [read_published(path) for path in published_files(root)]
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        folder.chmod(0o755)
        site = Site(folder, published)
        for board in boards:
            found = [(section, ranked(section)) for section in board.sections]
            sections = [
                (section, rows, make_table(rows, section.metric), compare_sites(rows, section.metric))
                for section, rows in found
            ]
            site.board(
                board,
                sections,
                board_figures(board, found),
            )
            _write_csv(folder / "boards" / f"{board.name.slug}.csv", found)
            _write_markdown(folder / "boards" / f"{board.name.slug}.md", board, sections)
        for submission in checked.submissions:
            site.record(submission, record_figures(submission))
            _copy(submission, folder / "records")
        site.index(boards)
        built = Built([board.name.slug for board in boards], len(checked.submissions))
        write_json(folder / MARK, {"boards": built.boards, "records": built.records})
        _swap(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return built


def _swap(folder: Path, out: Path) -> None:
    if out.exists():
        old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
        out.rename(old / "old")
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        folder.rename(out)


def _copy(submission: Submission, folder: Path) -> None:
    for suffix in LIMITS:
        if submission.has(suffix):
            shutil.copyfile(submission.path(suffix), folder / f"{submission.key}{suffix}")


COLUMNS = (
    "section", "metric", "rank_low", "rank_high", "tied_at_the_top", "method", "score", "low", "high", "unit", "seeds",
    "cases", "pretrain", "backbone", "head", "recipe", "labels", "sites", "hours", "device", "records",
)  # fmt: skip


def _lines(found: list[tuple[Section, list[Row]]]) -> Iterator[list[str]]:
    for section, rows in found:
        for row in rows:
            record, score, hours = row.method.record, row.score, hours_of(row)
            yield [
                section.title,
                section.metric,
                str(row.low or ""),
                str(row.high or ""),
                "yes" if row.top else "no",
                row.method.label,
                *(("", "", "") if score is None else (repr(score.value), repr(score.low), repr(score.high))),
                record.metrics[section.metric].unit,
                " ".join(map(str, row.method.runs)),
                str(len(record.data.split.test)),
                record.spec.pretrain.name,
                record.spec.backbone.name,
                record.spec.head.name,
                record.spec.recipe.name,
                repr(record.spec.labels),
                sites_text(record),
                "" if hours is None else f"{hours:.6g}",
                record.cost.device if record.cost else "",
                " ".join(run.key for run in (*row.method.runs.values(), *row.method.more)),
            ]


def _write_csv(path: Path, found: list[tuple[Section, list[Row]]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    # A cell that a spreadsheet would take for a formula is a text to it with a quote before it.
    writer.writerows(
        [
            f"'{cell}" if cell[:1] in ("=", "+", "@", "\t") or (cell[:1] == "-" and not _number(cell)) else cell
            for cell in line
        ]
        for line in _lines(found)
    )
    path.write_text(text.getvalue())


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _write_markdown(path: Path, board: Board, sections: list[tuple[Section, list[Row], Table, list[Line]]]) -> None:
    lines = [f"# {board.name.title}", ""]
    if board.name.kind == "demo":
        lines += ["Stand-in data: these scores show that the machinery works, and nothing about patients.", ""]
    for section, rows, table, shared in sections:
        lines += [
            f"## {_markdown(section.title)}",
            "",
            f"| rank | method | {section.metric} | 95 % interval | seeds |",
            "|---|---|---|---|---|",
        ]
        for row, cells in zip(rows, table.rows, strict=True):
            mark = " (tied at the top)" if row.top else ""
            cell = [
                rank_text(row) + mark,
                _markdown(row.method.label),
                cells[2][1],
                cells[3][4],
                str(len(row.method.runs)),
            ]
            lines.append(f"| {' | '.join(cell)} |")
        lines.append("")
        if shared:
            lines += ["What sharing gains:", "", f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
            lines += [f"| {' | '.join(map(_markdown, line.texts(unit_of(rows, section.metric))))} |" for line in shared]
            lines.append("")
    path.write_text("\n".join(lines))


def _markdown(text: str) -> str:
    """A text that Markdown shows as it is."""
    escaped = "".join(f"\\{character}" if character in "\\`*_{}[]()#+!|~$^" else character for character in text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ").replace("\r", " ")
