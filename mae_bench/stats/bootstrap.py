"""Bootstrap intervals over cases, and over seeds and cases together."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95

Scores = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its percentile interval at LEVEL."""

    value: float
    low: float
    high: float


def _percentiles(draws: Scores, level: float = LEVEL) -> tuple[float, float]:
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
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


def _rows(cases: int, resamples: int = RESAMPLES) -> list[int]:
    """The resamples in portions whose tables stay small, however many cases there are."""
    portion = max(1, min(resamples, 2**22 // cases))
    return [min(portion, resamples - done) for done in range(0, resamples, portion)]


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


def two_way_interval(table: Scores, seed: int = 0, resamples: int = RESAMPLES) -> Interval | None:
    """Mean over seeds and cases, with a hierarchical percentile bootstrap interval.

    Seeds are drawn first, then cases, the same cases under every drawn seed: both kinds of chance are in it. With few
    seeds percentiles lie too close together; they are taken further out, as far as a t of so many would lie beyond a
    normal one (Hesterberg 2015, section 5.3). With one seed it is the plain bootstrap over cases.

    Args:
        table: (seeds, cases). NaN marks what cannot be scored; it leaves the mean.

    Returns:
        None when nothing can be scored.
    """
    seeds, cases = table.shape
    known = np.isfinite(table)
    if not known.any():
        return None
    rng = np.random.default_rng(seed)
    values, weights = np.where(known, table, 0.0), known.astype(float)
    draws = []
    for rows in _rows(cases, resamples):
        # Drawing with replacement is giving weights: the mean of a draw is a ratio of two bilinear forms.
        seed_weight = rng.multinomial(seeds, np.full(seeds, 1 / seeds), rows).astype(float)
        case_weight = rng.multinomial(cases, np.full(cases, 1 / cases), rows).astype(float)
        total = ((seed_weight @ values) * case_weight).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append(total / ((seed_weight @ weights) * case_weight).sum(axis=1))
    means = np.concatenate(draws)
    level = LEVEL if seeds == 1 else _expanded(seeds)
    return Interval(float(table[known].mean()), *_percentiles(means[np.isfinite(means)], level))


def _expanded(count: int) -> float:
    """Level at which the percentiles of a bootstrap of `count` items reach as far as a t interval at LEVEL."""
    reach = scipy.stats.t.ppf(0.5 + LEVEL / 2, count - 1) * np.sqrt(count / (count - 1))
    return float(1 - 2 * scipy.stats.norm.sf(reach))
