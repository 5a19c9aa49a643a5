"""Area under the ROC curve, by scikit-learn and by counting pairs."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mae_bench.metrics.classification import auc, mean_auc


def by_pairs(truth: np.ndarray, score: np.ndarray) -> float:
    """The share of (positive, negative) pairs in the right order; ties count half."""
    wins = [float(p > n) + 0.5 * float(p == n) for p in score[truth == 1] for n in score[truth == 0]]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [1, 8])
def test_auc(seed: int, digits: int) -> None:
    """One digit gives many ties."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(60) < 0.3).astype(float)
    score = np.round(truth * 0.3 + rng.random(60), digits)
    assert auc(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert auc(truth, score) == pytest.approx(by_pairs(truth, score), abs=1e-12)


def test_ends_and_middle() -> None:
    truth = np.array([0.0, 0.0, 1.0, 1.0])
    assert auc(truth, truth) == 1
    assert auc(truth, -truth) == 0
    assert auc(truth, np.zeros(4)) == 0.5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_finding_on_which_all_cases_agree_has_no_auc(value: float) -> None:
    """Not 0, which the paper's code averages in (PAPER D10)."""
    assert np.isnan(auc(np.full(5, value), np.arange(5.0)))
    assert np.isnan(auc(np.array([value]), np.array([0.5])))
    assert np.isnan(auc(np.array([]), np.array([])))


def test_the_mean_is_over_findings_that_can_be_scored() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((40, 4)) < 0.4).astype(float)
    score = truth + rng.normal(0, 1, (40, 4))
    truth[:, 2] = 0
    expected = np.mean([roc_auc_score(truth[:, column], score[:, column]) for column in (0, 1, 3)])
    assert mean_auc(truth, score) == pytest.approx(expected)
    assert np.isnan(mean_auc(np.ones((5, 2)), rng.random((5, 2))))


def test_only_the_order_of_scores_counts() -> None:
    rng = np.random.default_rng(1)
    truth, score = (np.arange(30) % 3 == 0).astype(float), rng.normal(size=30)
    assert auc(truth, score) == auc(truth, 1 / (1 + np.exp(-score))) == auc(truth, 5 * score - 2)
