"""How often are equals declared different, and differences found? Run: python benchmarks/calibration.py [STORE]

Without a store, tables are drawn with known variances of seeds and cases. With the store of `grids/equals.toml`, groups
of five of its runs are compared with five others.
"""

import argparse
import itertools
from collections.abc import Iterator
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
LEVEL, HOLM_LEVEL = 0.05, 0.005  # of one test, and what Holm's correction asks of the first of ten
SHAPES = [(2, 12), (2, 100), (3, 12), (5, 12), (5, 100), (5, 1000), (10, 4), (10, 12)]
TRUTHS = {
    "nothing but chance": Components(0, 0, 1),
    "seeds": Components(0.3, 0, 1),
    "cases": Components(0, 2, 1),
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


def percent(wrong: NDArray[np.bool_] | list[bool]) -> str:
    """How many of them, in words."""
    return f"{100 * np.mean(wrong):.1f} %"


def crossed(rng: np.random.Generator, repeats: int) -> Iterator[tuple[str, ...]]:
    """Error rates of the test at two levels and of the bootstrap interval, and power as found and as predicted."""
    for (words, truth), shape in itertools.product(TRUTHS.items(), SHAPES):
        seeds, cases = shape
        p = p_values(rng, repeats, shape, truth)
        intervals = [two_way_interval(table, resamples=500) for table in draw(rng, min(repeats, 300), shape, truth)]
        outside = [not each.low <= 0 <= each.high for each in intervals if each is not None]
        # A difference of three standard errors.
        mean = 3 * np.sqrt(truth.seeds / seeds + truth.cases / cases + truth.rest / (seeds * cases))
        found = p_values(rng, repeats, shape, truth, mean) < LEVEL
        yield (
            words,
            f"{seeds} x {cases}",
            percent(p < LEVEL),
            f"{100 * np.mean(p < HOLM_LEVEL):.2f} %",
            percent(outside),
            f"{found.mean():.3f}",
            f"{power(truth, mean, seeds, cases):.3f}",
        )


def one_seed(rng: np.random.Generator, repeats: int) -> Iterator[tuple[str, ...]]:
    """Error rates of the test over the cases of a single seed, where scores are normal, skewed, or fail at times."""
    scores = {
        "normal": lambda size: rng.normal(size=size),
        "skewed": lambda size: rng.exponential(size=size),
        "one in ten fails": lambda size: np.where(rng.random(size) < 0.1, 0.0, rng.normal(0.8, 0.05, size)),
    }
    for (words, score), cases in itertools.product(scores.items(), (6, 12, 100)):
        count = min(repeats, ONCE)
        differences = score((count, cases)) - score((count, cases))
        yield words, str(cases), percent([difference_test(table[None]).p < LEVEL for table in differences])


def ranks(rng: np.random.Generator, repeats: int) -> Iterator[tuple[str, ...]]:
    """How often nine methods are ranked wrongly: all alike, and in three groups of three."""
    for (words, truth), shifts in itertools.product(TRUTHS.items(), (np.zeros(METHODS), np.array(SHIFTS))):
        shape = (5, 12)
        # A step between groups of eight standard errors of one method.
        step = 8 * np.sqrt(truth.seeds / shape[0] + truth.cases / shape[1] + truth.rest / (shape[0] * shape[1]))
        better = (shifts[:, None] < shifts[None, :]).sum(axis=1)
        worse = (shifts[:, None] > shifts[None, :]).sum(axis=1)
        wrong, top = [], []
        for _ in range(min(repeats, ONCE)):
            pairs = pairwise(draw(rng, METHODS, shape, truth) + step * shifts[:, None, None])
            found = rank_intervals(pairs.difference, pairs.p, 1 - LEVEL)
            # A set of true ranks is what ties leave: from one more than the better to all but the worse.
            wrong.append(bool((found.low > 1 + better).any() or (found.high < METHODS - worse).any()))
            top.append((found.low == 1).sum())
        yield (words, "alike" if not shifts.any() else "three groups of three", percent(wrong), f"{np.mean(top):.1f}")


def simulate(repeats: int) -> None:
    """Print the tables of docs/statistics.md."""
    rng = np.random.default_rng(0)
    print_table(
        ("differ by", "seeds x cases", "at 5 %", "at 0.5 %", "by bootstrap", "power", "predicted"),
        crossed(rng, repeats),
    )
    print_table(("scores of one seed", "cases", "equals told apart"), one_seed(rng, repeats))
    print_table(("nine methods differ by", "in truth", "any rank wrong", "tied at the top"), ranks(rng, repeats))


def compare_equals(store: Store, repeats: int) -> None:
    """Print how often two groups of five runs of one method differ."""
    records = [record for record in store.records() if record.status == "ok"]
    metric = records[0].main_metric
    table = np.array([contributions(read_cases(store, record), metric) for record in records])
    rng = np.random.default_rng(0)
    chosen = np.array([rng.permutation(len(records))[:10] for _ in range(repeats)])
    wrong = difference_tests(table[chosen[:, :5]] - table[chosen[:, 5:]]).p < LEVEL
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
