"""The table of a section: one description for the site, CSV and Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mae_bench.leaderboard.ranking import Row
from mae_bench.record import ResultRecord

Kind = Literal["rank", "text", "number", "bar", "links"]


@dataclass(frozen=True)
class Column:
    """kind: how a cell looks. detail: hidden on a phone until asked for. choice: worth a filter of its own."""

    title: str
    kind: Kind = "text"
    detail: bool = False
    choice: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the page's script reads it."""
        return {"title": self.title, "kind": self.kind, "detail": self.detail, "choice": self.choice}


@dataclass(frozen=True)
class Table:
    """Cells by kind: rank [sort, text, top]; text; number [sort, text]; bar [sort, low, value, high] in per cent of
    the width, with the numbers as text; links [[text, address], …].
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As the page's script reads it."""
        return {"columns": [column.to_json() for column in self.columns], "rows": self.rows}


def digits_of(unit: str) -> int:
    """Decimals of a score: distances have one, shares four."""
    return 1 if unit in ("mm", "voxel") else 4


def unit_of(rows: Sequence[Row], metric: str) -> str:
    """Unit of the scores of a section."""
    return rows[0].method.record.metrics[metric].unit if rows else "1"


def make_table(rows: Sequence[Row], metric: str) -> Table:
    """The table of ranked methods."""
    unit = unit_of(rows, metric)
    digits = digits_of(unit)
    scores = [row.score for row in rows if row.score is not None]
    low, high = min((each.low for each in scores), default=0.0), max((each.high for each in scores), default=1.0)

    def at(value: float) -> float:
        return round(2 + 96 * (value - low) / ((high - low) or 1.0), 2)

    columns = (
        Column("Rank", "rank"),
        Column("Method"),
        Column(metric if unit == "1" else f"{metric} ({unit})", "number"),
        Column("95 % interval", "bar"),
        Column("Seeds", "links"),
        Column("Pre-training", detail=True, choice=True),
        Column("Backbone", detail=True, choice=True),
        Column("Head", detail=True, choice=True),
        Column("Recipe", detail=True, choice=True),
        Column("Sites", detail=True, choice=True),
        Column("Hours", "number", detail=True),
        Column("Device", detail=True, choice=True),
    )
    made = []
    for row in rows:
        record, score = row.method.record, row.score
        hours = hours_of(row)
        made.append(
            (
                [row.low or len(rows) + 1, rank_text(row), row.top],
                row.method.label,
                [None, "-"] if score is None else [score.value, f"{score.value:.{digits}f}"],
                [None, 0, 0, 0, "-"]
                if score is None
                else [
                    score.low,
                    at(score.low),
                    at(score.value),
                    at(score.high),
                    f"{score.low:.{digits}f} to {score.high:.{digits}f}",
                ],
                [[str(seed), run.key] for seed, run in row.method.runs.items()]
                + [[f"{run.record.spec.seed}.{run.record.spec.pretrain_seed}", run.key] for run in row.method.more],
                record.spec.pretrain.name,
                record.spec.backbone.name,
                record.spec.head.name,
                record.spec.recipe.name,
                sites_text(record),
                [None, "-"] if hours is None else [hours, f"{hours:.3g}"],
                record.cost.device if record.cost else "-",
            )
        )
    return Table(columns, tuple(made))


def rank_text(row: Row) -> str:
    """A rank interval: `1`, `2-5`, or `-` when it was not compared."""
    if not row.low:
        return "-"
    return str(row.low) if row.low == row.high else f"{row.low}–{row.high}"


def hours_of(row: Row) -> float | None:
    """Mean training time of its runs, in hours."""
    spent = [run.record.cost.wall_s / 3600 for run in row.method.runs.values() if run.record.cost]
    return sum(spent) / len(spent) if spent else None


def sites_text(record: ResultRecord) -> str:
    """How many sites share the training, and how."""
    found = record.spec.federation
    if found is None:
        return "one"
    if found.only is not None:
        return f"site {found.only} alone of {found.sites}"
    return f"{found.sites}, {found.strategy}"
