"""What sites gain by sharing: federated methods beside the mean and the best of what the sites can do alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from mae_bench.leaderboard.board import Method
from mae_bench.leaderboard.label import method_of
from mae_bench.leaderboard.ranking import Row
from mae_bench.leaderboard.table import digits_of
from mae_bench.record import ResultRecord
from mae_bench.standings import lower_is_better, method_table
from mae_bench.stats.bootstrap import Interval, two_way_interval
from mae_bench.values import digest


@dataclass(frozen=True)
class SiteScore:
    """Score of a model on the selection cases of one site."""

    site: str
    score: float
    cases: int


@dataclass(frozen=True)
class Line:
    """One line of the comparison. worst: mean over seeds of the worst site's score. up, down: bytes of one run."""

    label: str
    score: Interval | None
    worst: float | None = None
    up: int | None = None
    down: int | None = None

    def texts(self, unit: str) -> tuple[str, str, str, str, str, str]:
        """Label, score, interval, worst site, megabytes up and down, as people read them."""
        digits = digits_of(unit)
        score = self.score
        return (
            self.label,
            "-" if score is None else f"{score.value:.{digits}f}",
            "-" if score is None else f"{score.low:.{digits}f} to {score.high:.{digits}f}",
            "-" if self.worst is None else f"{self.worst:.{digits}f}",
            *("-" if sent is None else f"{sent / 1e6:.1f}" for sent in (self.up, self.down)),  # type: ignore[return-value]
        )


TITLES = ("Method", "Score", "95 % interval", "Worst site", "MB up", "MB down")


def site_scores(record: ResultRecord) -> list[SiteScore]:
    """Scores at each site, if the record tells them in a form that can be read: nobody checks events as metrics are."""
    for event in record.events:
        scores, cases = event.get("scores"), event.get("cases")
        if event.get("event") == "site scores" and isinstance(scores, dict) and isinstance(cases, dict):
            return [
                SiteScore(site, float(score), count)
                for site, score in scores.items()
                if _number(score) and isinstance(count := cases.get(site), int)
            ]
    return []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare_sites(rows: Sequence[Row], metric: str) -> list[Line]:
    """Federated methods, best first, then mean and best of each set of sites that trained alone. Empty without any."""
    lines, alone = [], defaultdict(list)
    for row in rows:
        federation = row.method.record.spec.federation
        if federation is not None and federation.only is not None:
            alone[_without_site(row.method)].append(row)
        elif federation is not None:
            lines.append(_shared(row, metric))
    for same in alone.values():
        lines += _apart(same, metric)
    return lines


def _without_site(method: Method) -> str:
    described: dict[str, Any] = method_of(method.record.spec)
    return digest(described | {"federation": described["federation"] | {"only": None}})


def _shared(row: Row, metric: str) -> Line:
    runs = [run.record for run in row.method.runs.values()]
    sign = -1 if lower_is_better(metric) else 1
    found = [min(scores, key=lambda each: sign * each.score).score for run in runs if (scores := site_scores(run))]
    sent = [run.cost for run in runs if run.cost is not None]
    return Line(
        row.method.label,
        row.score,
        float(np.mean(found)) if found else None,
        round(np.mean([cost.bytes_up for cost in sent])) if sent else None,
        round(np.mean([cost.bytes_down for cost in sent])) if sent else None,
    )


def _apart(rows: Sequence[Row], metric: str) -> list[Line]:
    """Mean over the sites, on the seeds that all of them have, and the best site; rows come best first."""
    spec = rows[0].method.record.spec
    federation = spec.federation
    assert federation is not None
    dealt = federation.partition + (f" {federation.alpha:g}" if federation.partition == "dirichlet" else "")
    whose = f"{spec.pretrain.name}, {len(rows)} of {federation.sites} sites, each alone, {dealt}"
    tables = [method_table({seed: run.cases for seed, run in row.method.runs.items()}, metric) for row in rows]
    seeds = reduce(pd.Index.intersection, [table.columns for table in tables])
    mean = sum(table[seeds].to_numpy(float) for table in tables) / len(tables)
    best = rows[0].method.record.spec.federation
    assert best is not None
    return [
        Line(f"{whose}: their mean", two_way_interval(np.asarray(mean).T, resamples=2_000) if len(seeds) else None),
        Line(f"{whose}: the best, site {best.only}, chosen by this very score", rows[0].score),
    ]
