"""The order of the methods of a section, by the project's own standings."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mae_bench.leaderboard.board import Method, Section
from mae_bench.metrics.contributions import contributions
from mae_bench.standings import lower_is_better, method_table, standings
from mae_bench.stats.bootstrap import Interval, two_way_interval

# Methods that share their seeds are tested all at once; others pair by pair, a hundredth of a second each.
MOST_PAIRS = 500


@dataclass(frozen=True)
class Row:
    """A method with its score. low, high: its rank interval; 0 where it was not compared, being far behind."""

    method: Method
    score: Interval | None
    low: int
    high: int

    @property
    def top(self) -> bool:
        """Whether no method is surely better."""
        return self.low == 1


def ranked(section: Section) -> list[Row]:
    """The rows of a section, best first; those without a score come last."""
    runs = {method.address: {seed: run.cases for seed, run in method.runs.items()} for method in section.methods}
    sign = 1 if lower_is_better(section.metric) else -1
    # The scores of single runs are means over their cases: `laws` made them again.
    means = {method.address: mean_score(method, section.metric) for method in section.methods}
    order = sorted(means, key=lambda address: (np.isnan(means[address]), sign * means[address], address))
    compared = _affordable(order, runs, section.metric)
    # By address: names are a stranger's words, and may be alike.
    found = {each.label: each for each in standings({each: runs[each] for each in compared}, section.metric)}
    methods = {method.address: method for method in section.methods}
    rows = []
    for address in order:
        standing = found.get(address)
        if standing is not None:
            rows.append(Row(methods[address], standing.score, standing.low, standing.high))
        else:
            table = method_table(runs[address], section.metric).to_numpy(float)
            rows.append(Row(methods[address], two_way_interval(table.T, resamples=2_000), 0, 0))
    return rows


def mean_score(method: Method, metric: str) -> float:
    """Mean of the scores of its runs, as their records have them; NaN without any."""
    values = [run.record.metrics[metric].value for run in method.runs.values()]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _affordable(order: Sequence[str], runs: Mapping[str, Mapping[int, pd.DataFrame]], metric: str) -> list[str]:
    """The best methods, as many as can be compared with at most MOST_PAIRS tests of single pairs."""
    alike: dict[tuple[int, ...], int] = defaultdict(int)
    pairs = 0
    for count, address in enumerate(order):
        seeds = tuple(runs[address])
        whole = all(np.isfinite(contributions(table, metric)).all() for table in runs[address].values())
        together = len(seeds) > 1 and whole
        pairs += count - (alike[seeds] if together else 0)
        if pairs > MOST_PAIRS:
            return list(order[:count])
        alike[seeds] += together
    return list(order)
