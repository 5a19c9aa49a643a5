"""Intervals against SciPy's bootstrap, slow loops and closed forms."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mae_bench.metrics.classification import auc
from mae_bench.stats.bootstrap import LEVEL, Interval, mean_interval, statistic_interval, two_way_interval

Scores = NDArray[np.float64]
GENERATOR = np.random.default_rng(20)


def close(found: Interval, expected: tuple[float, float], share: float = 0.06) -> None:
    """Both ends within a share of the width: what chance does to a percentile of some thousand draws."""
    slack = share * (expected[1] - expected[0])
    assert found.low == pytest.approx(expected[0], abs=slack)
    assert found.high == pytest.approx(expected[1], abs=slack)


SAMPLES = {
    "uniform": GENERATOR.random(40),
    "skewed": GENERATOR.lognormal(1, 1, 30),
    "few": np.array([0.1, 0.9, 0.4, 0.7, 0.8]),
    "two": np.array([0.0, 1.0]),
    "discrete": GENERATOR.integers(0, 2, 60).astype(float),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_mean_interval_is_scipys(name: str) -> None:
    scores = SAMPLES[name]
    reference = scipy.stats.bootstrap(
        (scores,), np.mean, method="percentile", confidence_level=LEVEL, n_resamples=20_000, rng=5
    ).confidence_interval
    found = mean_interval(scores)
    assert found is not None
    assert found.value == pytest.approx(scores.mean(), abs=1e-12)
    close(found, reference)


def test_mean_interval_of_many_cases_is_the_normal_one() -> None:
    scores = np.random.default_rng(1).normal(3, 2, 2000)
    half = 1.959964 * scores.std() / np.sqrt(len(scores))
    found = mean_interval(scores)
    assert found is not None
    close(found, (scores.mean() - half, scores.mean() + half), 0.03)


def test_nan_leaves_the_mean() -> None:
    scores = SAMPLES["uniform"]
    holes = np.insert(scores, [0, 7, 40], np.nan)
    assert mean_interval(holes) == mean_interval(scores)
    assert mean_interval(np.full(4, np.nan)) is None
    assert mean_interval(np.array([])) is None


def test_one_case_and_equal_cases_have_no_width() -> None:
    assert mean_interval(np.array([0.25])) == (0.25, 0.25, 0.25)
    assert mean_interval(np.full(9, 0.5)) == (0.5, 0.5, 0.5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.integers(0, 3))
def test_mean_interval_is_ordered_and_repeatable(values: list[float], seed: int) -> None:
    scores = np.array(values)
    found = mean_interval(scores, seed)
    assert found is not None
    assert found == mean_interval(scores, seed)
    slack = 1e-9
    assert scores.min() - slack <= found.low <= found.high <= scores.max() + slack


def test_statistic_interval_of_a_mean_is_the_mean_interval() -> None:
    scores = SAMPLES["uniform"]
    found = statistic_interval(len(scores), lambda chosen: float(scores[chosen].mean()), resamples=4000)
    reference = mean_interval(scores)
    assert found is not None
    assert reference is not None
    assert found.value == pytest.approx(reference.value)
    close(found, reference[1:])


def test_statistic_interval_of_an_auc() -> None:
    """Resamples of one class leave the percentiles; the rest is SciPy's paired bootstrap."""
    rng = np.random.default_rng(3)
    truth = (np.arange(30) < 6).astype(float)
    score = truth + rng.normal(0, 1, 30)
    found = statistic_interval(30, lambda chosen: auc(truth[chosen], score[chosen]))
    draws = []
    while len(draws) < 1000:
        chosen = rng.integers(30, size=30)
        if 0 < truth[chosen].sum() < 30:
            draws.append(roc_auc_score(truth[chosen], score[chosen]))
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(truth, score))
    close(found, tuple(np.percentile(draws, [2.5, 97.5])), 0.15)


def test_a_statistic_that_is_undefined_has_no_interval() -> None:
    truth, score = np.ones(5), np.arange(5.0)
    assert statistic_interval(5, lambda chosen: auc(truth[chosen], score[chosen])) is None


def slow(table: Scores, draws: int = 4000) -> Scores:
    """The hierarchical bootstrap in words: draw seeds, draw cases, average what is known."""
    rng = np.random.default_rng(99)
    seeds, cases = table.shape
    means = []
    for _ in range(draws):
        chosen_seeds, chosen_cases = rng.integers(seeds, size=seeds), rng.integers(cases, size=cases)
        values = [table[seed, case] for seed in chosen_seeds for case in chosen_cases]
        known = [value for value in values if value == value]
        if known:
            means.append(sum(known) / len(known))
    return np.array(means)


def expanded(seeds: int) -> list[float]:
    """Percentiles whose distance from the middle is that of a t interval of so many seeds (Hesterberg 2015)."""
    reach = scipy.stats.t(seeds - 1).ppf(0.975) * math.sqrt(seeds / (seeds - 1))
    return [100 * scipy.stats.norm.cdf(-reach), 100 * scipy.stats.norm.cdf(reach)]


def make_table(seeds: int, cases: int, of_seed: float, of_case: float) -> Scores:
    rng = np.random.default_rng([seeds, cases])
    effect = rng.normal(0.1, of_seed, (seeds, 1)) + rng.normal(0, of_case, (1, cases))
    return effect + rng.normal(0, 0.02, (seeds, cases))


@pytest.mark.parametrize("of_seed", [0.0, 0.3])
@pytest.mark.parametrize("of_case", [0.0, 0.3])
@pytest.mark.parametrize(("seeds", "cases"), [(7, 8), (12, 5)])
def test_two_way_interval_is_the_slow_one(seeds: int, cases: int, of_seed: float, of_case: float) -> None:
    table = make_table(seeds, cases, of_seed, of_case)
    found = two_way_interval(table)
    assert found is not None
    assert found.value == pytest.approx(table.mean())
    close(found, tuple(np.percentile(slow(table), expanded(seeds))), 0.12)


def test_with_holes_it_is_the_slow_one() -> None:
    table = make_table(8, 9, 0.2, 0.3)
    table[0, 2] = table[1, 4] = table[2, 4] = table[2, 0] = np.nan
    found = two_way_interval(table)
    assert found is not None
    assert found.value == pytest.approx(np.nanmean(table))
    close(found, tuple(np.percentile(slow(table), expanded(8))), 0.12)


def test_with_one_seed_it_is_scipys_bootstrap() -> None:
    table = make_table(1, 25, 0.0, 0.4)
    reference = scipy.stats.bootstrap((table[0],), np.mean, method="percentile", n_resamples=9999, rng=2)
    found = two_way_interval(table)
    assert found is not None
    close(found, reference.confidence_interval)


def test_seeds_are_part_of_the_chance() -> None:
    """Two seeds that disagree: no number of cases makes the mean sure."""
    table = np.array([[1.0] * 500, [-0.5] * 500])
    assert two_way_interval(table) == (0.25, -0.5, 1.0)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (1, 1)])
def test_what_cannot_be_scored_has_no_interval(shape: tuple[int, int]) -> None:
    assert two_way_interval(np.full(shape, np.nan)) is None
