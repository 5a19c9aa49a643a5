"""Tests between methods that were run on the same cases under several seeds.

Seeds and cases are both drawn by chance, and every seed sees every case. That is the design of studies in which several
readers read the same images (Dorfman, Berbaum and Metz 1992). The variance of the mean is a sum of what seeds and what
cases bring, each known with degrees of freedom of its own, and the interval takes each by the squared t of its own
(Banerjee 1961). A single t with Satterthwaite's (1946) degrees of freedom errs more often: where few seeds seem to
agree by chance, it takes the degrees of freedom of the cases for theirs. How often this one errs: docs/statistics.md.

A permutation over five seeds cannot reach 0.05, one over cases takes the chance of seeds for none, and percentiles of
five seeds are too narrow.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray
from scipy.optimize import elementwise

from mae_bench.stats.bootstrap import LEVEL, Interval, mean_interval

Numbers = NDArray[np.float64]
FLIPS = 9_999  # sign flips when there are too many to try them all


class Test(NamedTuple):
    """A difference between two methods, its interval at LEVEL, and the two-sided p-value of there being none.

    With one seed the interval is a bootstrap's and p that of sign flips: they may disagree at the edge.
    """

    difference: Interval
    p: float


class MeanSquares(NamedTuple):
    """Of a (seeds, cases) table of differences: between seeds, between cases, and what neither explains."""

    seeds: Numbers
    cases: Numbers
    rest: Numbers


def difference_test(table: Numbers) -> Test:
    """Test whether the mean of a (seeds, cases) table of differences is zero.

    With one seed the cases alone speak: signs are flipped, all of them or FLIPS draws (Fisher 1935).

    Raises:
        ValueError: the table has holes, or fewer than two cases.
    """
    if table.ndim != 2 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(f"need a (seeds, cases) table without holes and two cases, got {table.shape}")
    if len(table) == 1:
        interval = mean_interval(table[0])
        assert interval is not None
        flipped = scipy.stats.permutation_test(
            (table[0],),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=FLIPS,
            batch=max(1, 2**22 // table.shape[1]),
            rng=0,
        )
        return Test(interval, float(flipped.pvalue))
    value, reach, p = (float(each[0]) for each in difference_tests(table[None]))
    return Test(Interval(value, value - reach, value + reach), p)


class Tests(NamedTuple):
    """Many tests, alike in shape: mean differences, half their intervals at LEVEL, and two-sided p-values."""

    difference: Numbers
    reach: Numbers
    p: Numbers


def difference_tests(tables: Numbers) -> Tests:
    """Test the mean of each of many tables of differences.

    Args:
        tables: (N, seeds, cases), at least two seeds and two cases, no holes.
    """
    return _tests(tables.mean(axis=(1, 2)), _squares(tables), tables.shape[1:])


def pairwise(tables: Numbers) -> Tests:
    """Test all M x M pairs of methods at once, the difference being row minus column.

    Args:
        tables: (M, seeds, cases), at least two seeds and two cases, no holes.
    """
    squares = _pair_squares(tables)
    means = tables.mean(axis=(1, 2))
    difference = means[:, None] - means[None, :]
    # Where two methods are so alike that rounding leaves nothing of their products, from their difference itself.
    for i, j in np.argwhere((squares.seeds + squares.cases + squares.rest == 0) & (difference != 0)):
        table = (tables[i] - tables[j])[None]
        difference[i, j] = table.mean()
        for square, value in zip(squares, _squares(table), strict=True):
            square[i, j] = value[0]
    upper = np.triu_indices(len(tables), 1)
    found = _tests(difference[upper], MeanSquares(*(square[upper] for square in squares)), tables.shape[1:])
    reach, p = np.zeros_like(difference), np.ones_like(difference)
    for whole, half in ((reach, found.reach), (p, found.p)):
        whole[upper] = whole.T[upper] = half
    return Tests(difference, reach, p)


def _tests(difference: Numbers, squares: MeanSquares, shape: tuple[int, ...]) -> Tests:
    return Tests(difference, np.sqrt(_squared_reach(squares, shape, 1 - LEVEL)), _p_values(difference, squares, shape))


def _squared_reach(squares: MeanSquares, shape: tuple[int, ...], p: Numbers | float) -> Numbers:
    """Square of how far the mean lies from zero, either way, with chance `p`: half the interval at 1 - p.

    Each variance by the squared t of its own degrees of freedom (Banerjee 1961). The mean squares of seeds and of cases
    both hold the rest, which may be counted once only, and what is left of one without it may be anything: the rest is
    taken from one, then from the other, and the wider interval is kept.
    """
    seeds, cases = (_squared_t(count - 1, p) for count in shape)
    of_seeds, of_cases = (np.maximum(square - squares.rest, 0) for square in squares[:2])
    wider = np.maximum(squares.seeds * seeds + of_cases * cases, of_seeds * seeds + squares.cases * cases)
    return np.asarray(wider / np.prod(shape), np.float64)


def _squared_t(freedom: int, p: Numbers | float) -> Numbers:
    """Squared two-sided quantile of t; below zero where p is above one, so that a search may step over it."""
    quantile = -scipy.special.stdtrit(freedom, np.asarray(p) / 2)
    return np.asarray(quantile * np.abs(quantile), np.float64)


LEAST_P = 1e-50  # what is below counts as 0


def _p_values(difference: Numbers, squares: MeanSquares, shape: tuple[int, ...]) -> Numbers:
    """The p at which the interval just reaches zero; NaN where anything is not finite."""
    farthest = _squared_reach(squares, shape, LEAST_P)
    # Equal tables differ by nothing, surely; a constant difference is as sure.
    p = np.where(difference == 0, 1.0, 0.0)
    p[~np.isfinite(difference + farthest)] = np.nan
    sought = (difference != 0) & (farthest > difference**2)
    if not sought.any():
        return p
    square, squares = difference[sought] ** 2, MeanSquares(*(each[sought] for each in squares))
    # One t alone, on all of the variance or on the larger part only: p lies between what these would give.
    ends = []
    for spread, outer in (
        (np.maximum(squares.seeds, squares.cases), np.minimum),
        (squares.seeds + squares.cases, np.maximum),
    ):
        t = np.sqrt(square * np.prod(shape) / spread)
        ends.append(np.log(np.maximum(outer(*(2 * scipy.special.stdtr(count - 1, -t) for count in shape)), LEAST_P)))
    found = elementwise.find_root(
        lambda logarithm, square, *squares: square - _squared_reach(MeanSquares(*squares), shape, np.exp(logarithm)),
        (ends[0] - 0.01, ends[1] + 0.01),  # rounding must not leave the root outside
        args=(square, *squares),
        tolerances={"xatol": 1e-7, "xrtol": 0},
    )
    p[sought] = np.minimum(np.exp(found.x), 1.0)
    return p


class Effects(NamedTuple):
    """What seeds, cases and neither add to the mean of N tables, (N, items) each: sums of squares are mean squares."""

    seeds: Numbers
    cases: Numbers
    rest: Numbers


def _effects(tables: Numbers) -> Effects:
    count, seeds, cases = tables.shape
    grand = tables.mean(axis=(1, 2), keepdims=True)
    by_seed, by_case = tables.mean(axis=2, keepdims=True) - grand, tables.mean(axis=1, keepdims=True) - grand
    rest = tables - grand - by_seed - by_case
    return Effects(
        by_seed.reshape(count, -1) * np.sqrt(cases / (seeds - 1)),
        by_case.reshape(count, -1) * np.sqrt(seeds / (cases - 1)),
        rest.reshape(count, -1) / np.sqrt((seeds - 1) * (cases - 1)),
    )


def _squares(tables: Numbers) -> MeanSquares:
    """Mean squares of each of (N, seeds, cases) tables."""
    return MeanSquares(*((effect**2).sum(axis=1) for effect in _effects(tables)))


def _pair_squares(tables: Numbers) -> MeanSquares:
    """Mean squares of the difference of each pair: q(a - b) = q(a, a) + q(b, b) - 2 q(a, b) for each quadratic form."""

    def form(effect: Numbers) -> Numbers:
        product = effect @ effect.T
        own = np.diag(product)
        squares = own[:, None] + own[None, :] - 2 * product
        # What is left of equal numbers after rounding is no variance.
        squares[squares <= 1e-12 * (own[:, None] + own[None, :])] = 0
        return np.asarray(squares, np.float64)

    return MeanSquares(*map(form, _effects(tables)))


class Components(NamedTuple):
    """Variances of one difference: between seeds, between cases, and of a seed on a case."""

    seeds: float
    cases: float
    rest: float


def components(table: Numbers) -> Components:
    """Estimate the variances behind a (seeds, cases) table of differences, two of each at least; none is below zero."""
    seeds, cases = table.shape
    of_seeds, of_cases, rest = (float(each[0]) for each in _squares(table[None]))
    return Components(max((of_seeds - rest) / cases, 0.0), max((of_cases - rest) / seeds, 0.0), rest)


NODES = 32  # of each of three integrals


def power(variances: Components, difference: float, seeds: int, cases: int) -> float:
    """Chance that `difference` is found at level 1 - LEVEL with so many seeds and cases, at least 2 of each.

    The mean is normal and the mean squares are chi-squared, all independent: the chance that the mean lies beyond its
    reach is integrated over the mean squares.
    """
    shape = (seeds, cases)
    expected = (variances.rest + cases * variances.seeds, variances.rest + seeds * variances.cases, variances.rest)
    error = np.sqrt((expected[0] + expected[1] - expected[2]) / (seeds * cases))
    if error == 0:
        return float(difference != 0)
    # Over normal deviates, of which chi-squared is a smooth function.
    places, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights /= weights.sum()
    freedoms = (seeds - 1, cases - 1, (seeds - 1) * (cases - 1))
    drawn = (
        mean * scipy.special.chdtri(freedom, scipy.special.ndtr(-places)) / freedom
        for mean, freedom in zip(expected, freedoms, strict=True)
    )
    reach = np.sqrt(_squared_reach(MeanSquares(*np.meshgrid(*drawn, indexing="ij")), shape, 1 - LEVEL)) / error
    shift = abs(difference) / error
    chance = scipy.special.ndtr(shift - reach) + scipy.special.ndtr(-shift - reach)
    return min(float(np.einsum("ijk,i,j,k->", chance, weights, weights, weights)), 1.0)


class Needed(NamedTuple):
    """Fewest seeds with the cases there are, and fewest cases with the seeds there are; None: not even MOST."""

    seeds: int | None
    cases: int | None


MOST_SEEDS, MOST_CASES = 1_000, 100_000
POWER = 0.8


def needed(variances: Components, difference: float, seeds: int, cases: int) -> Needed:
    """What would find `difference` with probability POWER: so many seeds on these cases, or cases with these seeds.

    `seeds` and `cases` are at least 2: one seed says nothing of what others would show.
    """
    return Needed(
        _fewest(lambda count: power(variances, difference, count, cases), MOST_SEEDS),
        _fewest(lambda count: power(variances, difference, seeds, count), MOST_CASES),
    )


def _fewest(chance: Callable[[int], float], most: int) -> int | None:
    """Smallest count from 2 whose chance reaches POWER; chances rise with the count."""
    low, high = 2, 2
    while chance(high) < POWER:
        if high >= most:
            return None
        low, high = high + 1, min(2 * high, most)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= POWER else (middle + 1, high)
    return low
