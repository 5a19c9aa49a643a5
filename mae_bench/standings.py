"""From records of one board to an order of methods: scores and ranks with intervals, and who is tied at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mae_bench.errors import UsageError
from mae_bench.metrics.contributions import contributions
from mae_bench.stats.bootstrap import LEVEL, Interval, two_way_interval
from mae_bench.stats.mixed import difference_test, pairwise
from mae_bench.stats.ranks import rank_intervals

Numbers = NDArray[np.float64]
LOWER_IS_BETTER = ("hd95",)


@dataclass(frozen=True)
class Standing:
    """One method on a board. score: mean over its seeds and the cases, interval of both drawn anew.

    low, high: its rank interval; 0 where it shares no seed with any other method. top: no method is surely better.
    """

    label: str
    score: Interval
    seeds: tuple[int, ...]
    cases: int
    low: int
    high: int

    @property
    def top(self) -> bool:
        """Whether it may be the best."""
        return self.low == 1


def lower_is_better(metric: str) -> bool:
    """Whether smaller values of `metric` are better (distances)."""
    return metric.partition("/")[0] in LOWER_IS_BETTER


def standings(runs: Mapping[str, Mapping[int, pd.DataFrame]], metric: str) -> list[Standing]:
    """Order methods, best first; equal scores by label.

    Args:
        runs: per method and seed, the per-case table of its record. All methods are scored on the same cases.

    Raises:
        UsageError: the cases differ between runs, or none has such a metric.
    """
    names = sorted(runs)
    tables = {name: method_table(runs[name], metric) for name in names}
    cases = {table.index.size for table in tables.values()}
    reference = next(iter(tables.values())).index if tables else pd.Index([])
    if any(not table.index.equals(reference) for table in tables.values()):
        raise UsageError(f"the runs of one board must be scored on the same cases; here they have {sorted(cases)}")
    scored = [name for name in names if np.isfinite(tables[name].to_numpy()).any()]
    difference, p = _compare(scored, tables)
    np.fill_diagonal(p, np.nan)
    compared = np.isfinite(p).any(axis=1) | (len(scored) == 1)
    ranks = rank_intervals(-difference if lower_is_better(metric) else difference, p, LEVEL)
    found = [
        Standing(name, interval, tuple(map(int, tables[name].columns)), len(reference), int(low), int(high))
        for name, low, high in zip(scored, ranks.low * compared, ranks.high * compared, strict=True)
        if (interval := two_way_interval(tables[name].to_numpy().T, resamples=2_000)) is not None
    ]
    sign = 1 if lower_is_better(metric) else -1
    return sorted(found, key=lambda each: (sign * each.score.value, each.label))


def method_table(runs: Mapping[int, pd.DataFrame], metric: str) -> pd.DataFrame:
    """What each case contributes under each seed of a method: one row per case, by name, and one column per seed."""
    columns = {seed: pd.Series(contributions(table, metric), table["case"]) for seed, table in sorted(runs.items())}
    return pd.DataFrame(columns).sort_index()


def _compare(names: Sequence[str], tables: Mapping[str, pd.DataFrame]) -> tuple[Numbers, Numbers]:
    """Mean difference and p-value of each pair, on the seeds that both have and the cases that both could score."""
    difference, p = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    whole: dict[tuple[int, ...], list[int]] = {}
    for index, name in enumerate(names):
        if not tables[name].isna().to_numpy().any():
            whole.setdefault(tuple(map(int, tables[name].columns)), []).append(index)
    for seeds, members in whole.items():
        if len(seeds) > 1 and len(tables[names[members[0]]]) > 1:
            block = pairwise(np.stack([tables[names[index]].to_numpy().T for index in members]))
            difference[np.ix_(members, members)], p[np.ix_(members, members)] = block.difference, block.p
    for i, first in enumerate(names):
        for j, second in enumerate(names[:i]):
            if np.isnan(difference[i, j]):
                table = paired_table(tables[first], tables[second])
                if table.size and table.shape[1] > 1:
                    test = difference_test(table)
                    difference[i, j], p[i, j] = test.difference.value, test.p
                    difference[j, i], p[j, i] = -test.difference.value, test.p
    return np.nan_to_num(difference), p


def paired_table(first: pd.DataFrame, second: pd.DataFrame) -> Numbers:
    """First minus second on the seeds both have, (seeds, cases); a case that one could not score is left out."""
    shared = [seed for seed in first.columns if seed in second.columns]
    found = (first[shared] - second[shared]).dropna().to_numpy()
    return np.ascontiguousarray(found.T, dtype=np.float64)
