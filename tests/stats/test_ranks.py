"""Holm against statsmodels, and rank intervals against a slow reading of their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from mae_bench.stats.ranks import holm, rank_intervals


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_that_of_statsmodels(p: list[float]) -> None:
    _, expected, _, _ = multipletests(p, method="holm")
    assert holm(np.array(p)) == pytest.approx(expected)


def test_what_was_not_tested_does_not_count() -> None:
    found = holm(np.array([0.01, np.nan, 0.04]))
    assert found[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(found[1])


def test_three_methods() -> None:
    """The first beats the last for sure; the middle one cannot be told from either."""
    score = np.array([3.0, 2.0, 1.0])
    p = np.array([[1, 0.2, 0.001], [0.2, 1, 0.3], [0.001, 0.3, 1]])
    found = rank_intervals(score[:, None] - score, p, 0.95)
    assert found.low.tolist() == [1, 1, 2]
    assert found.high.tolist() == [2, 3, 3]


def test_what_was_not_compared_is_not_known() -> None:
    found = rank_intervals(np.array([[0.0, 5], [-5, 0]]), np.full((2, 2), np.nan), 0.95)
    assert (found.low.tolist(), found.high.tolist()) == ([1, 1], [2, 2])


def test_true_ranks_are_covered() -> None:
    """Five methods, two of them equal: all five true ranks lie in their intervals at least 95 times in 100."""
    from mae_bench.stats.mixed import pairwise

    rng = np.random.default_rng(0)
    truth = np.array([0.0, 0.0, 0.6, 1.2, 3.0])
    wrong = 0
    for _ in range(400):
        case = rng.normal(0, 1, (1, 1, 15))
        tables = truth[:, None, None] + case + rng.normal(0, 0.4, (5, 5, 1)) + rng.normal(0, 1, (5, 5, 15))
        pairs = pairwise(tables)
        found = rank_intervals(pairs.difference, pairs.p, 0.95)
        best = [1 + int((truth > value).sum()) for value in truth]
        worst = [int((truth >= value).sum()) for value in truth]
        wrong += any(low > first or high < last for low, high, first, last in zip(*found, best, worst, strict=True))
    assert wrong / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
