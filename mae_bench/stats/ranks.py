"""Who is ahead, and who cannot be told apart, when several methods were run on the same cases and seeds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def holm(p: Numbers) -> Numbers:
    """P-values adjusted for their number by Holm (1979), in the given order; NaN (not tested) counts for nothing."""
    tested = np.isfinite(p)
    values = p[tested]
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    adjusted = np.full(p.shape, np.nan)
    placed = np.empty(len(values))
    placed[order] = np.minimum(stepped, 1.0)
    adjusted[tested] = placed
    return adjusted


class Ranks(NamedTuple):
    """For each method the best and the worst rank it may have, 1 being the best; together right with probability LEVEL.

    low - 1 methods are surely better, and M - high surely worse (Al Mohamad et al. 2022). A method of low 1 is tied at
    the top.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]


def rank_intervals(difference: Numbers, p: Numbers, level: float) -> Ranks:
    """Rank intervals from all pairwise tests.

    Args:
        difference: (M, M), row minus column, positive where the row is better.
        p: (M, M) unadjusted; NaN where two methods were not compared. Holm's correction is applied to all pairs.
        level: of confidence.
    """
    methods = len(difference)
    upper = np.triu_indices(methods, 1)
    adjusted = np.full((methods, methods), np.nan)
    adjusted[upper] = holm(p[upper])
    adjusted.T[upper] = adjusted[upper]
    sure = adjusted < 1 - level
    return Ranks(
        1 + (sure & (difference < 0)).sum(axis=1),
        methods - (sure & (difference > 0)).sum(axis=1),
    )
