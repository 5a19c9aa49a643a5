"""Tests between methods that were run on the same cases under several seeds.

Seeds and cases are both drawn by chance, and every seed sees every case. That is the design of studies in which several
readers read the same images, and its analysis is theirs: Dorfman, Berbaum and Metz (1992), with Satterthwaite's (1946)
degrees of freedom. Hillis (2007) leaves the cases out of them, which errs too often when cases are few; here they are
in, and never less than the smaller side has. How often it errs: benchmarks/calibration.py.

A permutation over five seeds cannot reach 0.05, one over cases takes the chance of seeds for none, and percentiles of
five seeds are too narrow.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from mae_bench.stats.bootstrap import LEVEL, Interval, mean_interval

Numbers = NDArray[np.float64]
FLIPS = 9_999  # sign flips when there are too many to try them all


class Test(NamedTuple):
    """A difference between two methods, its interval at LEVEL, and the two-sided p-value of there being none."""

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
    pairs = pairwise(np.stack([table, np.zeros_like(table)]))
    value, error, freedom = (float(each[0, 1]) for each in (pairs.difference, pairs.error, pairs.freedom))
    reach = error * float(scipy.stats.t.ppf(0.5 + LEVEL / 2, freedom)) if error else 0.0
    return Test(Interval(value, value - reach, value + reach), float(pairs.p[0, 1]))


class Pairs(NamedTuple):
    """For each of M x M pairs of methods: mean difference (row minus column), standard error, degrees of freedom, p."""

    difference: Numbers
    error: Numbers
    freedom: Numbers
    p: Numbers


def pairwise(tables: Numbers) -> Pairs:
    """Test all pairs of methods at once.

    Args:
        tables: (M, seeds, cases), at least two seeds and two cases, no holes.
    """
    _, seeds, cases = tables.shape
    squares = _pair_squares(tables)
    means = tables.mean(axis=(1, 2))
    difference = means[:, None] - means[None, :]
    # Where two methods are so alike that rounding leaves nothing of their products, from their difference itself.
    for i, j in np.argwhere((squares.seeds + squares.cases + squares.rest == 0) & (difference != 0)):
        difference[i, j] = (tables[i] - tables[j]).mean()
        for form, value in zip(squares, _squares(tables[i] - tables[j]), strict=True):
            form[i, j] = value
    spread = squares.seeds + np.maximum(squares.cases - squares.rest, 0)
    error = np.sqrt(spread / (seeds * cases))
    freedom = _freedom(squares, seeds, cases)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Equal tables differ by nothing, surely; a constant difference is as sure.
        ratio = np.where(error > 0, np.abs(difference) / error, np.where(difference == 0, 0.0, np.inf))
    return Pairs(difference, error, freedom, np.asarray(2 * scipy.stats.t.sf(ratio, freedom), np.float64))


def _freedom(squares: MeanSquares, seeds: int, cases: int) -> Numbers:
    """Satterthwaite's degrees of freedom of seeds + max(cases - rest, 0)."""
    by_cases = squares.cases > squares.rest
    spread = squares.seeds + np.where(by_cases, squares.cases - squares.rest, 0)
    doubt = squares.seeds**2 / (seeds - 1)
    more = squares.cases**2 / (cases - 1) + squares.rest**2 / ((seeds - 1) * (cases - 1))
    doubt = doubt + np.where(by_cases, more, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(doubt > 0, spread**2 / doubt, np.inf)
    return np.maximum(freedom, min(seeds, cases) - 1)


def _pair_squares(tables: Numbers) -> MeanSquares:
    """Mean squares of the difference of each pair: q(a - b) = q(a, a) + q(b, b) - 2 q(a, b) for each quadratic form."""
    methods, seeds, cases = tables.shape
    grand = tables.mean(axis=(1, 2), keepdims=True)
    by_seed, by_case = tables.mean(axis=2, keepdims=True) - grand, tables.mean(axis=1, keepdims=True) - grand
    rest = tables - grand - by_seed - by_case

    def form(parts: Numbers, factor: float) -> Numbers:
        flat = parts.reshape(methods, -1)
        product = flat @ flat.T
        own = np.diag(product)
        squares = own[:, None] + own[None, :] - 2 * product
        # What is left of equal numbers after rounding is no variance.
        squares[squares <= 1e-12 * (own[:, None] + own[None, :])] = 0
        return np.asarray(factor * squares, np.float64)

    return MeanSquares(
        form(by_seed, cases / (seeds - 1)),
        form(by_case, seeds / (cases - 1)),
        form(rest, 1 / ((seeds - 1) * (cases - 1))),
    )


def _squares(table: Numbers) -> tuple[float, float, float]:
    """Mean squares of one (seeds, cases) table: of seeds, cases and rest."""
    seeds, cases = table.shape
    by_seed, by_case = table.mean(axis=1) - table.mean(), table.mean(axis=0) - table.mean()
    rest = table - table.mean() - by_seed[:, None] - by_case
    return (
        float(cases * (by_seed**2).sum() / (seeds - 1)),
        float(seeds * (by_case**2).sum() / (cases - 1)),
        float((rest**2).sum() / ((seeds - 1) * (cases - 1))),
    )


class Components(NamedTuple):
    """Variances of one difference: between seeds, between cases, and of a seed on a case."""

    seeds: float
    cases: float
    rest: float


def components(table: Numbers) -> Components:
    """Estimate the variances behind a (seeds, cases) table of differences; none is below zero.

    With one seed its chance cannot be told from the cases': all is put down to the cases.
    """
    seeds, cases = table.shape
    if seeds == 1:
        return Components(0.0, float(table.var(ddof=1)), 0.0)
    squares = _pair_squares(np.stack([table, np.zeros_like(table)]))
    of_seeds, of_cases, rest = (float(each[0, 1]) for each in squares)
    return Components(max((of_seeds - rest) / cases, 0.0), max((of_cases - rest) / seeds, 0.0), rest)


def power(variances: Components, difference: float, seeds: int, cases: int) -> float:
    """Chance that `difference` is found at level 1 - LEVEL with so many seeds and cases, by the noncentral t.

    The mean squares are put at their expectations. `seeds` and `cases` are at least 2.
    """
    of_seeds = variances.rest + cases * variances.seeds
    spread = of_seeds + seeds * variances.cases
    if spread == 0:
        return float(difference != 0)
    expected = (of_seeds, variances.rest + seeds * variances.cases, variances.rest)
    freedom = float(_freedom(MeanSquares(*(np.array(each) for each in expected)), seeds, cases))
    shift = abs(difference) / np.sqrt(spread / (seeds * cases))
    bound = scipy.stats.t.ppf(0.5 + LEVEL / 2, freedom)
    if not np.isfinite(freedom):
        return float(scipy.stats.norm.sf(bound - shift) + scipy.stats.norm.cdf(-bound - shift))
    return float(scipy.stats.nct.sf(bound, freedom, shift) + scipy.stats.nct.cdf(-bound, freedom, shift))


class Needed(NamedTuple):
    """Fewest seeds with the cases there are, and fewest cases with the seeds there are; None: not even MOST."""

    seeds: int | None
    cases: int | None


MOST_SEEDS, MOST_CASES = 1_000, 100_000
POWER = 0.8


def needed(variances: Components, difference: float, seeds: int, cases: int) -> Needed:
    """What would find `difference` with probability POWER: so many seeds on these cases, or cases with these seeds."""
    return Needed(
        _fewest(lambda count: power(variances, difference, count, max(cases, 2)), MOST_SEEDS),
        _fewest(lambda count: power(variances, difference, max(seeds, 2), count), MOST_CASES),
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
