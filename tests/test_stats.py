"""Intervals against SciPy's bootstrap, slow loops and closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mae_bench.metrics.classification import auc
from mae_bench.stats import LEVEL, Interval, mean_interval, paired_difference, statistic_interval

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


def slow(a: Scores, b: Scores, draws: int = 4000) -> tuple[float, float]:
    """The hierarchical bootstrap in words: draw seeds, draw cases, average what is known."""
    rng = np.random.default_rng(99)
    seeds, cases = a.shape
    means = []
    for _ in range(draws):
        chosen_seeds, chosen_cases = rng.integers(seeds, size=seeds), rng.integers(cases, size=cases)
        values = [a[seed, case] - b[seed, case] for seed in chosen_seeds for case in chosen_cases]
        known = [value for value in values if value == value]
        if known:
            means.append(sum(known) / len(known))
    return tuple(np.percentile(means, [2.5, 97.5]))


def tables(seeds: int, cases: int, of_seed: float, of_case: float) -> tuple[Scores, Scores]:
    rng = np.random.default_rng([seeds, cases])
    shared = rng.normal(0, 5, (1, cases))
    effect = rng.normal(0.1, of_seed, (seeds, 1)) + rng.normal(0, of_case, (1, cases))
    return shared + effect + rng.normal(0, 0.02, (seeds, cases)), shared + rng.normal(0, 0.02, (seeds, cases))


@pytest.mark.parametrize("of_seed", [0.0, 0.3])
@pytest.mark.parametrize("of_case", [0.0, 0.3])
@pytest.mark.parametrize(("seeds", "cases"), [(4, 8), (7, 5)])
def test_paired_difference_is_the_slow_one(seeds: int, cases: int, of_seed: float, of_case: float) -> None:
    a, b = tables(seeds, cases, of_seed, of_case)
    found = paired_difference(a, b)
    assert found.value == pytest.approx((a - b).mean())
    close(found, slow(a, b), 0.1)


def test_paired_difference_with_holes_is_the_slow_one() -> None:
    a, b = tables(3, 9, 0.2, 0.3)
    a[0, 2] = b[1, 4] = b[2, 4] = a[2, 0] = np.nan
    found = paired_difference(a, b)
    assert found.value == pytest.approx(np.nanmean(a - b))
    close(found, slow(a, b), 0.1)


def test_with_one_seed_it_is_scipys_paired_bootstrap() -> None:
    a, b = tables(1, 25, 0.0, 0.4)
    reference = scipy.stats.bootstrap(
        (a[0], b[0]), lambda x, y: np.mean(x - y), paired=True, vectorized=False, method="percentile",
        n_resamples=9999, rng=2,
    ).confidence_interval  # fmt: skip
    close(paired_difference(a, b), reference)


def test_what_the_methods_share_cancels() -> None:
    """Cases differ by 5, the methods by 0.1: an unpaired interval would be fifty times as wide."""
    a, b = tables(5, 12, 0.0, 0.0)
    found = paired_difference(a, b)
    assert found.low > 0
    assert found.high - found.low < 0.1


def test_seeds_are_part_of_the_chance() -> None:
    """Two seeds that disagree: no number of cases makes the difference sure."""
    a = np.array([[1.0] * 500, [-0.5] * 500])
    found = paired_difference(a, np.zeros_like(a))
    assert (found.value, found.low, found.high) == (0.25, -0.5, 1.0)


@pytest.mark.parametrize("change", [lambda a, b: (b, a), lambda a, b: (a + 3, b + 3), lambda a, b: (2 * a, 2 * b)])
def test_symmetries(change: Callable[[Scores, Scores], tuple[Scores, Scores]]) -> None:
    a, b = tables(3, 10, 0.2, 0.2)
    found, other = paired_difference(a, b), paired_difference(*change(a, b))
    scale = other.value / found.value
    assert abs(scale) == pytest.approx(1) or scale == pytest.approx(2)
    assert sorted(other[1:]) == pytest.approx(sorted(scale * end for end in found[1:]), abs=1e-9)


def test_a_method_does_not_differ_from_itself() -> None:
    a, _ = tables(3, 10, 0.2, 0.2)
    assert paired_difference(a, a) == (0, 0, 0)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((6,), (6,)), ((0, 3), (0, 3)), ((2, 0), (2, 0))])
def test_tables_of_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="two equal"):
        paired_difference(*(np.zeros(shape) for shape in shapes))
