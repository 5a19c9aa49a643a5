"""Tests of differences against SciPy, a slow two-way analysis of variance in statsmodels, and simulated truth."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from statsmodels.formula.api import ols

from mae_bench.stats.mixed import Components, components, difference_test, difference_tests, needed, pairwise, power

Numbers = NDArray[np.float64]


def draw(rng: np.random.Generator, seeds: int, cases: int, variances: Components, mean: float = 0.0) -> Numbers:
    """A table of differences with known variances."""
    table: Numbers = draw_many(rng, 1, (seeds, cases), variances, mean)[0]
    return table


def draw_many(
    rng: np.random.Generator, count: int, shape: tuple[int, int], variances: Components, mean: float = 0.0
) -> Numbers:
    """Tables of differences with known variances."""
    seeds, cases = shape
    of_seed = rng.normal(0, np.sqrt(variances.seeds), (count, seeds, 1))
    of_case = rng.normal(0, np.sqrt(variances.cases), (count, 1, cases))
    return mean + of_seed + of_case + rng.normal(0, np.sqrt(variances.rest), (count, seeds, cases))


def anova(table: Numbers) -> Numbers:
    """Mean squares of seeds, cases and the rest, by statsmodels."""
    seeds, cases = table.shape
    rows = pd.DataFrame(
        {"y": table.ravel(), "seed": np.repeat(range(seeds), cases), "case": np.tile(range(cases), seeds)}
    )
    found = sm.stats.anova_lm(ols("y ~ C(seed) + C(case)", rows).fit())
    return (found["sum_sq"] / found["df"]).to_numpy()


def reach(parts: tuple[float, float], shape: tuple[int, int], p: float) -> float:
    """Half of Banerjee's interval at 1 - p, from what seeds and cases bring to the variance of the mean."""
    total = sum(part * scipy.stats.t.isf(p / 2, count - 1) ** 2 for part, count in zip(parts, shape, strict=True))
    return float(np.sqrt(total / np.prod(shape)))


@pytest.mark.parametrize("shape", [(2, 3), (5, 12), (4, 4), (12, 5)])
@pytest.mark.parametrize("mean", [0.2, 3.0])
def test_mean_squares_are_those_of_statsmodels(shape: tuple[int, int], mean: float) -> None:
    table = draw(np.random.default_rng(1), *shape, Components(0.5, 0.7, 1.0), mean)
    of_seeds, of_cases, rest = anova(table)
    seeds, cases = shape
    ways = ((of_seeds, max(of_cases - rest, 0)), (max(of_seeds - rest, 0), of_cases))
    found = difference_test(table)
    value = abs(table.mean())
    assert found.difference.value == pytest.approx(table.mean())
    logarithms = [
        scipy.optimize.brentq(lambda x, way=way: reach(way, shape, np.exp(x)) - value, -60, 0) for way in ways
    ]
    assert found.p == pytest.approx(np.exp(max(logarithms)), rel=1e-6)
    half = max(reach(way, shape, 0.05) for way in ways)
    assert found.difference[1:] == pytest.approx((table.mean() - half, table.mean() + half))
    assert components(table) == pytest.approx(
        (max((of_seeds - rest) / cases, 0), max((of_cases - rest) / seeds, 0), rest)
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 1000), st.floats(0, 20))
def test_the_interval_holds_zero_where_p_says_so(seeds: int, cases: int, seed: int, mean: float) -> None:
    rng = np.random.default_rng(seed)
    found = difference_test(draw(rng, seeds, cases, Components(rng.random(), rng.random(), 1), mean))
    assert (found.p >= 0.05) == (found.difference.low <= 0 <= found.difference.high)


def test_when_cases_say_nothing_it_is_the_t_test_of_seed_means() -> None:
    table = draw(np.random.default_rng(3), 6, 200, Components(4.0, 0.0, 0.01), 1.0)
    reference = scipy.stats.ttest_1samp(table.mean(axis=1), 0)
    assert difference_test(table).p == pytest.approx(reference.pvalue, rel=0.02)


def test_one_seed_is_the_exact_permutation_over_cases() -> None:
    table = np.array([[0.3, -0.1, 0.5, 0.2, 0.4, -0.2, 0.6]])
    means = [np.mean(table[0] * signs) for signs in itertools.product((1, -1), repeat=7)]
    expected = np.mean(np.abs(means) >= abs(table.mean()) - 1e-12)
    assert difference_test(table).p == pytest.approx(expected)


def test_pairs_are_the_single_tests() -> None:
    rng = np.random.default_rng(4)
    tables = np.stack([draw(rng, 4, 9, Components(0.2, 0.3, 1), shift) for shift in (0, 0.5, 2, 2)])
    tables[3] = tables[2]
    found = pairwise(tables)
    for i, j in itertools.permutations(range(4), 2):
        single = difference_test(tables[i] - tables[j])
        assert found.difference[i, j] == pytest.approx(single.difference.value, abs=1e-12)
        assert found.p[i, j] == pytest.approx(single.p, abs=1e-9)
    assert found.p[2, 3] == 1
    np.testing.assert_allclose(found.p, found.p.T)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 1000), st.floats(0.1, 50))
def test_scale_sign_and_order_change_nothing(seeds: int, cases: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    table = draw(rng, seeds, cases, Components(1, 1, 1), 0.5)
    p = difference_test(table).p
    assert difference_test(-scale * table).p == pytest.approx(p, rel=1e-6)
    assert difference_test(table[rng.permutation(seeds)][:, rng.permutation(cases)]).p == pytest.approx(p, rel=1e-6)
    assert difference_test(table.T).p == pytest.approx(p, rel=1e-6)


TRUTHS = [Components(0, 0, 1), Components(0.3, 0.3, 1), Components(0, 2, 1), Components(1, 0, 1), Components(0.3, 1, 1)]
TRUTHS += [Components(0, 0.1, 1)]


@pytest.mark.parametrize("variances", TRUTHS)
@pytest.mark.parametrize(("seeds", "cases"), [(5, 12), (3, 30), (2, 100), (12, 4), (10, 10)])
def test_equals_are_declared_different_no_more_often_than_said(variances: Components, seeds: int, cases: int) -> None:
    """At the level of one test, and at the smaller one that Holm asks of ten."""
    rng = np.random.default_rng(5)
    p = difference_tests(draw_many(rng, 20_000, (seeds, cases), variances)).p
    for level in (0.05, 0.005):
        assert (p < level).mean() < level + 3 * np.sqrt(level * (1 - level) / len(p))


@pytest.mark.parametrize("variances", TRUTHS)
@pytest.mark.parametrize(("seeds", "cases"), [(6, 20), (2, 100), (12, 4)])
def test_differences_are_found_as_often_as_predicted(variances: Components, seeds: int, cases: int) -> None:
    rng = np.random.default_rng(6)
    mean = 3 * np.sqrt(variances.seeds / seeds + variances.cases / cases + variances.rest / (seeds * cases))
    found = (difference_tests(draw_many(rng, 20_000, (seeds, cases), variances, mean)).p < 0.05).mean()
    assert found == pytest.approx(power(variances, mean, seeds, cases), abs=3 * np.sqrt(0.25 / 20_000))


def test_power_of_one_group_is_statsmodels() -> None:
    """When only seeds vary it is the power of a t-test."""
    from statsmodels.stats.power import TTestPower

    expected = TTestPower().power(effect_size=0.8 / 2.0, nobs=8, alpha=0.05)
    assert power(Components(4.0, 0.0, 0.0), 0.8, 8, 50) == pytest.approx(expected, abs=1e-6)


def test_what_is_needed_is_the_least_that_suffices() -> None:
    variances = Components(0.2, 0.1, 1.0)
    found = needed(variances, 0.5, 5, 12)
    assert found.seeds is not None
    assert power(variances, 0.5, found.seeds, 12) >= 0.8 > power(variances, 0.5, found.seeds - 1, 12)
    assert needed(variances, 0.0, 5, 12) == (None, None)
    # No number of cases makes up for seeds that disagree.
    assert needed(Components(1.0, 0.0, 0.1), 0.1, 3, 10).cases is None


def test_numbers_that_are_not_finite_are_no_claim() -> None:
    """They are not tested; least of all are they sure."""
    tables = np.random.default_rng(7).normal(size=(3, 4, 9))
    tables[1, 2, 3] = np.nan
    tables[2, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        assert np.isnan(difference_tests(tables).p).tolist() == [False, True, True]
        assert np.isnan(pairwise(tables).p[np.triu_indices(3, 1)]).all()


@pytest.mark.parametrize("table", [np.zeros((2, 1)), np.zeros(4), np.array([[np.nan, 1.0], [1.0, 2.0]])])
def test_tables_that_cannot_be_tested_are_refused(table: Numbers) -> None:
    with pytest.raises(ValueError, match="without holes"):
        difference_test(table)
