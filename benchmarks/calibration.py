"""How often are equals declared different, and differences found? Run: python benchmarks/calibration.py [STORE]

Without a store, tables are drawn with known variances of seeds and cases. With the store of `grids/equals.toml`, groups
of five of its runs are compared with five others.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mae_bench.compare import read_cases
from mae_bench.metrics.contributions import contributions
from mae_bench.stats.bootstrap import two_way_interval
from mae_bench.stats.mixed import Components, difference_test, power
from mae_bench.store import Store

LEVEL = 0.05
SHAPES = [(2, 12), (3, 12), (5, 12), (5, 100), (5, 1000), (10, 12)]
TRUTHS = {
    "seeds and cases alike": Components(0, 0, 1),
    "seeds differ": Components(0.3, 0, 1),
    "cases differ": Components(0, 2, 1),
    "both differ": Components(0.3, 0.3, 1),
}


def draw(rng: np.random.Generator, seeds: int, cases: int, truth: Components, mean: float) -> NDArray[np.float64]:
    """A (seeds, cases) table of differences."""
    parts = zip(truth, ((seeds, 1), (1, cases), (seeds, cases)), strict=True)
    return mean + sum(rng.normal(0, np.sqrt(variance), shape) for variance, shape in parts)


def simulate(repeats: int) -> None:
    """Print error rates of the test and of the bootstrap interval, and power as found and as predicted."""
    rng = np.random.default_rng(0)
    heads = (
        "what is behind the differences",
        "seeds x cases",
        "equals told apart",
        "by bootstrap",
        "power",
        "predicted",
    )
    print(f"| {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|")
    for (words, truth), (seeds, cases) in itertools.product(TRUTHS.items(), SHAPES):
        tables = [draw(rng, seeds, cases, truth, 0.0) for _ in range(repeats)]
        wrong = np.mean([difference_test(table).p < LEVEL for table in tables])
        intervals = [two_way_interval(table, resamples=500) for table in tables[: min(repeats, 300)]]
        outside = np.mean([not each.low <= 0 <= each.high for each in intervals if each is not None])
        # A difference of two and a half standard errors.
        mean = 2.5 * np.sqrt(truth.seeds / seeds + truth.cases / cases + truth.rest / (seeds * cases))
        found = np.mean(
            [difference_test(draw(rng, seeds, cases, truth, mean)).p < LEVEL for _ in range(min(repeats, 1000))]
        )
        predicted = power(truth, mean, seeds, cases)
        print(
            f"| {words} | {seeds} x {cases} | {100 * wrong:.1f} % | {100 * outside:.1f} % "
            f"| {found:.2f} | {predicted:.2f} |"
        )


def compare_equals(store: Store, repeats: int) -> None:
    """Print how often two groups of five runs of one method differ."""
    records = [record for record in store.records() if record.status == "ok"]
    metric = records[0].main_metric
    table = np.array([contributions(read_cases(store, record), metric) for record in records])
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(repeats):
        chosen = rng.permutation(len(records))[:10]
        wrong += difference_test(table[chosen[:5]] - table[chosen[5:]]).p < LEVEL
    print(
        f"{len(records)} runs of {records[0].spec.pretrain.name} on {table.shape[1]} cases, {metric} "
        f"{table.mean():.4f}: {wrong} of {repeats} pairs of five told apart ({100 * wrong / repeats:.1f} %)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=2000)
    asked = parser.parse_args()
    if asked.store is None:
        simulate(asked.repeats)
    else:
        compare_equals(Store(asked.store), asked.repeats)
