"""The order of the methods of a section, by the project's own standings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mae_bench.leaderboard.board import Method, Section
from mae_bench.standings import lower_is_better, method_table, standings
from mae_bench.stats.bootstrap import Interval, two_way_interval

# Methods that share their seeds are tested all at once; others pair by pair, a hundredth of a second each.
MOST_PAIRS = 1_000


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
    tables = {address: method_table(each, section.metric) for address, each in runs.items()}
    sign = 1 if lower_is_better(section.metric) else -1
    means = {
        address: float(np.nanmean(table)) if table.notna().to_numpy().any() else np.inf
        for address, table in tables.items()
    }
    order = sorted(
        means, key=lambda address: (sign * means[address] if np.isfinite(means[address]) else np.inf, address)
    )
    compared = _affordable(order, tables)
    # By label, which breaks ties in a way that people can follow.
    name = {method.address: method.label for method in section.methods}
    found = {each.label: each for each in standings({name[each]: runs[each] for each in compared}, section.metric)}
    methods = {method.address: method for method in section.methods}
    rows = []
    for address in order:
        standing = found.get(name[address])
        if standing is not None:
            rows.append(Row(methods[address], standing.score, standing.low, standing.high))
        else:
            rows.append(Row(methods[address], two_way_interval(tables[address].to_numpy().T, resamples=2_000), 0, 0))
    return rows


def _affordable(order: Sequence[str], tables: dict[str, pd.DataFrame]) -> list[str]:
    """The best methods, as many as can be compared with at most MOST_PAIRS tests of single pairs."""
    alike: dict[tuple[int, ...], int] = defaultdict(int)
    pairs = 0
    for count, address in enumerate(order):
        table = tables[address]
        seeds = tuple(map(int, table.columns))
        together = len(seeds) > 1 and not table.isna().to_numpy().any()
        pairs += count - (alike[seeds] if together else 0)
        if pairs > MOST_PAIRS:
            return list(order[:count])
        alike[seeds] += together
    return list(order)
