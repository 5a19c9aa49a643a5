"""How often are equals declared different, and differences found? Run: python benchmarks/calibration.py [STORE]

Without a store, tables are drawn with known variances of seeds and cases. With the store of `grids/equals.toml`, groups
of five of its runs are compared with five others.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mae_bench.compare import read_cases
from mae_bench.metrics.contributions import contributions
from mae_bench.stats.bootstrap import two_way_interval
from mae_bench.stats.mixed import Components, difference_test, difference_tests, pairwise, power
from mae_bench.stats.ranks import rank_intervals
from mae_bench.store import Store

Numbers = NDArray[np.float64]
ERROR, HOLM_ERROR = 0.05, 0.005  # of one test, and what Holm's correction asks of the first of ten
SHAPES = [(2, 12), (2, 100), (3, 12), (5, 12), (5, 100), (5, 1000), (10, 4), (10, 10), (12, 12)]
TRUTHS = {
    "nothing but chance": Components(0, 0, 1),
    "seeds": Components(0.3, 0, 1),
    "cases": Components(0, 2, 1),
    "cases, a little": Components(0, 0.1, 1),
    "both": Components(0.3, 0.3, 1),
    "both, cases most": Components(0.1, 1, 1),
}
ONCE, METHODS, SHIFTS = 2_000, 9, (0, 0, 0, 1, 1, 1, 2, 2, 2)
PORTION = 2**24  # numbers drawn at once


def draw(rng: np.random.Generator, count: int, shape: tuple[int, int], truth: Components, mean: float = 0) -> Numbers:
    """(count, seeds, cases) tables of differences."""
    seeds, cases = shape
    parts = zip(truth, ((count, seeds, 1), (count, 1, cases), (count, seeds, cases)), strict=True)
    return mean + sum(rng.normal(0, np.sqrt(variance), each) for variance, each in parts)


def p_values(
    rng: np.random.Generator, count: int, shape: tuple[int, int], truth: Components, mean: float = 0
) -> Numbers:
    """P-values of `count` tables, drawn and tested in portions that fit memory."""
    most = max(1, PORTION // (shape[0] * shape[1]))
    portions = [min(most, count - done) for done in range(0, count, most)]
    return np.concatenate([difference_tests(draw(rng, portion, shape, truth, mean)).p for portion in portions])


def print_table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    """Print a table in Markdown, row by row as it comes."""
    for row in itertools.chain([heads, ("---",) * len(heads)], rows):
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def percent(wrong: NDArray[np.bool_] | list[bool], digits: int = 1) -> str:
    """Their share."""
    return f"{100 * np.mean(wrong):.{digits}f} %"


def crossed(rng: np.random.Generator, repeats: int) -> Iterator[tuple[str, ...]]:
    """Error rates of the test at two levels and of the bootstrap interval, and power as found and as predicted."""
    for (words, truth), shape in itertools.product(TRUTHS.items(), SHAPES):
        seeds, cases = shape
        p = p_values(rng, repeats, shape, truth)
        intervals = [two_way_interval(table, resamples=500) for table in draw(rng, min(repeats, 300), shape, truth)]
        outside = [not each.low <= 0 <= each.high for each in intervals if each is not None]
        # A difference of three standard errors.
        mean = 3 * np.sqrt(truth.seeds / seeds + truth.cases / cases + truth.rest / (seeds * cases))
        found = p_values(rng, repeats, shape, truth, mean) < ERROR
        yield (
            words,
            f"{seeds} x {cases}",
            percent(p < ERROR),
            percent(p < HOLM_ERROR, 2),
            percent(outside),
            f"{found.mean():.3f}",
            f"{power(truth, mean, seeds, cases):.3f}",
        )


def one_seed(rng: np.random.Generator, repeats: int) -> Iterator[tuple[str, ...]]:
    """Error rates of the test over the cases of a single seed: two methods of the same mean, alike or not in shape."""

    def failing(size: tuple[int, int], failures: float, dice: float) -> Numbers:
        return np.where(rng.random(size) < failures, 0.0, rng.normal(dice, 0.05, size))

    scores: dict[str, Callable[[tuple[int, int]], Numbers]] = {
        "both normal": lambda size: rng.normal(size=size) - rng.normal(size=size),
        "both fail one time in ten": lambda size: failing(size, 0.1, 0.8) - failing(size, 0.1, 0.8),
        "one fails one time in ten": lambda size: failing(size, 0.1, 0.8) - failing(size, 0.0, 0.72),
    }
    for (words, differences), cases in itertools.product(scores.items(), (6, 12, 100)):
        tables = differences((min(repeats, ONCE), cases))
        yield words, str(cases), percent([difference_test(table[None]).p < ERROR for table in tables])


def ranks(rng: np.random.Generator, repeats: int) -> Iterator[tuple[str, ...]]:
    """How often nine methods are ranked wrongly: all alike, and in three groups of three."""
    settings = itertools.product(TRUTHS.items(), ((5, 12), (10, 10)), (np.zeros(METHODS), np.array(SHIFTS)))
    for (words, truth), shape, shifts in settings:
        # A step between groups of eight standard errors of one method.
        step = 8 * np.sqrt(truth.seeds / shape[0] + truth.cases / shape[1] + truth.rest / (shape[0] * shape[1]))
        better = (shifts[:, None] < shifts[None, :]).sum(axis=1)
        worse = (shifts[:, None] > shifts[None, :]).sum(axis=1)
        wrong, top = [], []
        for _ in range(min(repeats, ONCE)):
            pairs = pairwise(draw(rng, METHODS, shape, truth) + step * shifts[:, None, None])
            found = rank_intervals(pairs.difference, pairs.p, 1 - ERROR)
            # A set of true ranks is what ties leave: from one more than the better to all but the worse.
            wrong.append(bool((found.low > 1 + better).any() or (found.high < METHODS - worse).any()))
            top.append((found.low == 1).sum())
        where = "three groups of three" if shifts.any() else "alike"
        yield words, f"{shape[0]} x {shape[1]}", where, percent(wrong), f"{np.mean(top):.1f}"


def simulate(repeats: int) -> None:
    """Print the tables of docs/statistics.md."""
    rng = np.random.default_rng(0)
    print_table(
        ("differ by", "seeds x cases", "at 5 %", "at 0.5 %", "by bootstrap", "power", "predicted"),
        crossed(rng, repeats),
    )
    print_table(("scores under one seed", "cases", "equals told apart"), one_seed(rng, repeats))
    print_table(
        ("nine methods differ by", "seeds x cases", "in truth", "any rank wrong", "tied at the top"),
        ranks(rng, repeats),
    )


def compare_equals(store: Store, repeats: int) -> None:
    """Print how often two groups of five runs of one method differ."""
    records = [record for record in store.records() if record.status == "ok"]
    metric = records[0].main_metric
    table = np.array([contributions(read_cases(store, record), metric) for record in records])
    rng = np.random.default_rng(0)
    chosen = np.array([rng.permutation(len(records))[:10] for _ in range(repeats)])
    wrong = difference_tests(table[chosen[:, :5]] - table[chosen[:, 5:]]).p < ERROR
    print(
        f"{len(records)} runs of {records[0].spec.pretrain.name} on {table.shape[1]} cases, {metric} "
        f"{table.mean():.4f}: {wrong.sum()} of {repeats} pairs of five told apart ({percent(wrong)})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=20_000)
    asked = parser.parse_args()
    if asked.store is None:
        simulate(asked.repeats)
    else:
        compare_equals(Store(asked.store), asked.repeats)
