"""The pages of the site. Whatever a record says is text in them: escaped by Jinja, and no script may run but ours.

A page starts one script, whose hash its Content-Security-Policy names; that one loads `site.js`, which loads plotly.js
when a figure comes into view. Scripts in any other place are refused by the browser, from a folder as from a server.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mae_bench.leaderboard.board import Board, Section, board_name
from mae_bench.leaderboard.command import command_of, shell_text
from mae_bench.leaderboard.contamination import disclosure, lane_of
from mae_bench.leaderboard.federations import TITLES, Line, site_scores
from mae_bench.leaderboard.figures import Figure
from mae_bench.leaderboard.published import MEANING, Published
from mae_bench.leaderboard.ranking import Row
from mae_bench.leaderboard.submission import PICTURES, Submission
from mae_bench.leaderboard.table import Table, digits_of, unit_of
from mae_bench.record import Metric

FIRST = 100  # rows that are in a page before its script has run
LOADER = "(d=>{let s=d.createElement('script');s.src=d.currentScript.dataset.src;d.head.append(s)})(document)"
# plotly.js adds a style sheet for its maps, which the policy refuses, unless something in the page bears its name.
MAPS = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')


def _policy() -> str:
    loader, empty = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (LOADER, ""))
    # `file:` beside 'self': opened from a folder, a page has no origin that 'self' could mean in every browser.
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'sha256-{loader}' 'strict-dynamic'",
            # Plotly adds an empty style sheet, and fills it by script.
            f"style-src 'self' file: 'sha256-{empty}'",
            "img-src 'self' file: data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


class Site:
    """Writes pages into a folder."""

    def __init__(self, folder: Path, published: Sequence[Published]) -> None:
        self.folder, self.published = folder, published
        self.pages = Environment(
            loader=PackageLoader("mae_bench.leaderboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        plotly = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
        maps = MAPS.search(plotly)
        self.pages.globals.update(
            policy=_policy(), loader=LOADER, meaning=MEANING, maps=maps[1].decode() if maps else "maps"
        )
        self.leaders: dict[str, list[str]] = {}
        for name in ("boards", "records", "assets"):
            (folder / name).mkdir()
        for name in ("site.js", "site.css"):
            (folder / "assets" / name).write_bytes((files("mae_bench.leaderboard") / "static" / name).read_bytes())
        (folder / "assets" / "plotly.min.js").write_bytes(plotly)

    def board(
        self, board: Board, sections: Sequence[tuple[Section, list[Row], Table, list[Line]]], figures: list[Figure]
    ) -> None:
        """Write the page of a board."""
        slug = board.name.slug
        self.leaders[slug] = [
            row.method.label for section, rows, *_ in sections[:1] if not section.lane for row in rows if row.top
        ]
        text = self.pages.get_template("board.html").render(
            board=board,
            sections=[
                {
                    "section": section,
                    "table": table,
                    "data": table.to_json(),
                    "ties": sum(row.top for row in rows),
                    "sites": [line.texts(unit_of(rows, section.metric)) for line in shared],
                }
                for section, rows, table, shared in sections
            ],
            first=FIRST,
            site_titles=TITLES,
            figures=figures,
            published=[each for each in self.published if each.dataset == board.name.dataset],
            root="..",
        )
        (self.folder / "boards" / f"{slug}.html").write_text(text)

    def record(self, submission: Submission, figures: list[Figure]) -> None:
        """Write the page of a record."""
        record = submission.record
        text = self.pages.get_template("record.html").render(
            record=record,
            board=board_name(record),
            metrics=[(name, *_metric(metric), metric.unit) for name, metric in record.metrics.items()],
            sites=[(each.site, each.cases, f"{each.score:.4f}") for each in site_scores(record)],
            figures=figures,
            pictures=[picture for picture in PICTURES if submission.has(f".{picture}.png")],
            curves=submission.has(".losses.csv"),
            command=shell_text(command_of(record.spec)),
            disclosure=disclosure(record),
            overlap=bool(lane_of(record)),
            spec=record.spec.model_dump_json(indent=1),
            environment=_json(record.environment),
            events=[_json(event, indent=None) for event in record.events],
            root="..",
        )
        (self.folder / "records" / f"{record.key}.html").write_text(text)

    def index(self, boards: Sequence[Board]) -> None:
        """Write the first page, and its Markdown."""
        measured = {board.name.dataset for board in boards}
        rows: list[dict[str, Any]] = [
            {
                "name": board.name,
                "methods": len({method.address for section in board.sections for method in section.methods}),
                "records": sum(
                    len(method.runs) + len(method.more) for section in board.sections for method in section.methods
                ),
                "leaders": self.leaders[board.name.slug],
            }
            for board in boards
        ]
        text = self.pages.get_template("index.html").render(
            rows=rows, published=self.published, measured=measured, root="."
        )
        (self.folder / "index.html").write_text(text)
        lines = ["# Leaderboards", "", "| board | methods | records |", "|---|---|---|"]
        lines += [
            f"| [{row['name'].title}](boards/{row['name'].slug}.md) | {row['methods']} | {row['records']} |"
            for row in rows
        ]
        (self.folder / "README.md").write_text("\n".join(lines) + "\n")


def _metric(metric: Metric) -> tuple[str, str]:
    if metric.value is None or metric.low is None or metric.high is None:
        return "-", "-"
    digits = digits_of(metric.unit)
    return f"{metric.value:.{digits}f}", f"{metric.low:.{digits}f} to {metric.high:.{digits}f}"


def _json(value: Any, indent: int | None = 1) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=True)
