"""How sure we are: bootstrap intervals, and paired differences over cases and seeds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95

Scores = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its percentile interval at LEVEL."""

    value: float
    low: float
    high: float


def _percentiles(draws: Scores) -> tuple[float, float]:
    low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def mean_interval(scores: Scores, seed: int = 0) -> Interval | None:
    """Mean over cases with its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Args:
        scores: (cases,). NaN marks a case that cannot be scored; it leaves the mean.

    Returns:
        None when no case can be scored.
    """
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return None
    rng = np.random.default_rng(seed)
    means = [scores[rng.integers(len(scores), size=(rows, len(scores)))].mean(axis=1) for rows in _rows(len(scores))]
    return Interval(float(scores.mean()), *_percentiles(np.concatenate(means)))


def _rows(cases: int) -> list[int]:
    """RESAMPLES in portions whose tables stay small, however many cases there are."""
    portion = max(1, min(RESAMPLES, 2**22 // cases))
    return [min(portion, RESAMPLES - done) for done in range(0, RESAMPLES, portion)]


def statistic_interval(
    cases: int, statistic: Callable[[NDArray[np.intp]], float], seed: int = 0, resamples: int = 1000
) -> Interval | None:
    """Interval of a statistic that is no mean over cases (a concordance): `statistic(indices)` on resampled cases."""
    (interval,) = statistic_intervals(cases, lambda drawn: np.array([statistic(drawn)]), seed, resamples)
    return interval


def statistic_intervals(
    cases: int, statistics: Callable[[NDArray[np.intp]], Scores], seed: int = 0, resamples: int = 1000
) -> list[Interval | None]:
    """Intervals of several statistics of the same cases (AUCs): `statistics(indices)` gives (K,) on resampled cases.

    Resamples on which a statistic is undefined (NaN, one class only) are drawn again in effect: they leave its
    percentiles.

    Returns:
        For each statistic its interval, or None when it is undefined on all cases.
    """
    values = statistics(np.arange(cases))
    rng = np.random.default_rng(seed)
    draws = np.array([statistics(rng.integers(cases, size=cases)) for _ in range(resamples)])
    found: list[Interval | None] = []
    for value, drawn in zip(values, draws.T, strict=True):
        known = drawn[np.isfinite(drawn)]
        usable = np.isfinite(value) and len(known)
        found.append(Interval(float(value), *_percentiles(known)) if usable else None)
    return found


def paired_difference(a: Scores, b: Scores, seed: int = 0) -> Interval:
    """Mean of `a - b` over seeds and cases, with a hierarchical bootstrap interval.

    Seeds are drawn first, then cases, the same cases under every drawn seed and under both methods: both
    kinds of chance are in the interval, and what the methods share cancels.

    Args:
        a, b: (seeds, cases), the same seeds and cases in the same order. Pairs with a NaN leave the mean.
    """
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise ValueError(f"need two equal (seeds, cases) tables, got {a.shape} and {b.shape}")
    difference = a - b
    seeds, cases = difference.shape
    rng = np.random.default_rng(seed)
    known = np.isfinite(difference)
    if not known.any():
        raise ValueError("no pair of scores is known")
    values, weights = np.where(known, difference, 0.0), known.astype(float)
    draws = []
    for rows in _rows(cases):
        # Drawing with replacement is giving weights: the mean of a draw is a ratio of two bilinear forms.
        seed_weight = rng.multinomial(seeds, np.full(seeds, 1 / seeds), rows)
        case_weight = rng.multinomial(cases, np.full(cases, 1 / cases), rows)
        total = ((seed_weight @ values) * case_weight).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append(total / ((seed_weight @ weights) * case_weight).sum(axis=1))
    means = np.concatenate(draws)
    return Interval(float(np.nanmean(difference)), *_percentiles(means[np.isfinite(means)]))


def paired_statistic_difference(
    seeds: int,
    cases: int,
    statistic: Callable[[int, NDArray[np.intp]], float],
    seed: int = 0,
    resamples: int = 1000,
) -> Interval | None:
    """As `paired_difference` for a difference that is not a mean over cases: `statistic(seed, cases)` gives it.

    Returns:
        None when it is undefined on all cases.
    """
    rng = np.random.default_rng(seed)
    value = np.mean([statistic(number, np.arange(cases)) for number in range(seeds)])
    if not np.isfinite(value):
        return None
    draws = []
    for _ in range(resamples):
        drawn = rng.integers(cases, size=cases)
        draws.append(np.mean([statistic(int(number), drawn) for number in rng.integers(seeds, size=seeds)]))
    means = np.array(draws)
    return Interval(float(value), *_percentiles(means[np.isfinite(means)]))
