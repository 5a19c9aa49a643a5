"""Concordance against a plain double loop, and on examples whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.metrics.survival import Numbers, concordance


def by_pairs(time: Numbers, event: Numbers, risk: Numbers) -> float:
    """Every pair once: which of the two is known to have come first, and did it have the higher risk."""
    right = pairs = 0.0
    for a in range(len(time)):
        for b in range(a + 1, len(time)):
            first, second = (a, b) if (time[a], -event[a]) < (time[b], -event[b]) else (b, a)
            if (time[first], event[first]) == (time[second], event[second]) or not event[first]:
                continue
            pairs += 1
            right += 1.0 if risk[first] > risk[second] else 0.5 if risk[first] == risk[second] else 0.0
    return right / pairs if pairs else math.nan


cohorts = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 1), st.integers(-2, 2)), min_size=1, max_size=14).map(
    lambda rows: np.array(rows, float)
)


@given(cohort=cohorts)
@settings(deadline=None, max_examples=200)
def test_it_counts_pairs(cohort: Numbers) -> None:
    """With ties in time and in risk, and censoring."""
    time, event, risk = cohort.T
    np.testing.assert_equal(concordance(time, event, risk), by_pairs(time, event, risk))


@given(cohort=cohorts)
@settings(deadline=None, max_examples=50)
def test_the_opposite_risks_give_the_rest(cohort: Numbers) -> None:
    time, event, risk = cohort.T
    found = concordance(time, event, risk)
    np.testing.assert_allclose(concordance(time, event, -risk), 1 - found)
    np.testing.assert_allclose(concordance(time, event, np.exp(risk)), found)


KNOWN = [
    # four patients, all die: 6 pairs; the risks swap the middle two
    ([1, 2, 3, 4], [1, 1, 1, 1], [4, 2, 3, 1], 5 / 6),
    ([1, 2, 3], [1, 1, 1], [3, 2, 1], 1.0),
    ([1, 2, 3], [1, 1, 1], [1, 2, 3], 0.0),
    ([1, 2, 3], [1, 1, 1], [0, 0, 0], 0.5),
    # who left at 2 says nothing of 3, but outlived 1
    ([1, 2, 3], [1, 0, 1], [2, 3, 1], 1 / 2),
    # a death and a censoring on the same day: the death came first
    ([5, 5], [1, 0], [1, 0], 1.0),
    # two deaths on the same day have no order; the third outlived both
    ([5, 5, 6], [1, 1, 0], [1, 9, 0], 1.0),
]


@pytest.mark.parametrize(("time", "event", "risk", "expected"), KNOWN)
def test_known_examples(time: list[int], event: list[int], risk: list[int], expected: float) -> None:
    assert concordance(*(np.array(x, float) for x in (time, event, risk))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("time", "event"), [([1, 2, 3], [0, 0, 0]), ([1], [1]), ([2, 2], [1, 1]), ([1, 2, 3], [0, 0, 1]), ([], [])]
)
def test_without_a_comparable_pair_it_is_undefined(time: list[int], event: list[int]) -> None:
    assert math.isnan(concordance(np.array(time, float), np.array(event, float), np.arange(len(time), dtype=float)))
