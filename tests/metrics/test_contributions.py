"""What cases contribute, against the jackknife as it is defined, on scikit-learn's AUC and our concordance."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mae_bench.errors import UsageError
from mae_bench.metrics.contributions import contributions
from mae_bench.metrics.survival import concordance


def jackknife(cases: pd.DataFrame, statistic: Callable[[pd.DataFrame], float]) -> np.ndarray:
    """Tukey's pseudovalues, one refit per case, moved to the mean of the statistic."""
    count, value = len(cases), statistic(cases)
    found = np.array([count * value - (count - 1) * statistic(cases.drop(index=row)) for row in cases.index])
    return found - found.mean() + value


def findings(count: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"case": [f"c{number}" for number in range(count)]})
    for name in ("mass", "hernia"):
        table[f"truth/{name}"] = (rng.random(count) < 0.3).astype(float)
        # Rounded, so that scores tie.
        table[f"score/{name}"] = np.round(rng.random(count) + 0.3 * table[f"truth/{name}"], 1)
    return table


def test_auc() -> None:
    cases = findings()
    expected = jackknife(cases, lambda rows: roc_auc_score(rows["truth/mass"], rows["score/mass"]))
    assert contributions(cases, "auc/mass") == pytest.approx(expected)


def test_mean_auc() -> None:
    cases = findings(seed=1)
    names = ("mass", "hernia")
    found = contributions(cases, "auc")
    assert found == pytest.approx(
        jackknife(cases, lambda rows: np.mean([roc_auc_score(rows[f"truth/{n}"], rows[f"score/{n}"]) for n in names]))
    )
    assert found.mean() == pytest.approx(
        np.mean([roc_auc_score(cases[f"truth/{n}"], cases[f"score/{n}"]) for n in names])
    )


def test_a_finding_of_one_class_leaves_the_mean() -> None:
    cases = findings()
    cases["truth/hernia"] = 0.0
    assert contributions(cases, "auc") == pytest.approx(contributions(cases, "auc/mass"))
    assert np.isnan(contributions(cases, "auc/hernia")).all()


def test_concordance() -> None:
    rng = np.random.default_rng(2)
    cases = pd.DataFrame(
        {
            "case": range(30),
            "time": rng.integers(1, 15, 30).astype(float),
            "event": (rng.random(30) < 0.6).astype(float),
        }
    )
    cases["risk"] = np.round(-cases["time"] / 5 + rng.normal(0, 1, 30), 1)
    expected = jackknife(cases, lambda rows: concordance(*(rows[n].to_numpy() for n in ("time", "event", "risk"))))
    assert contributions(cases, "concordance") == pytest.approx(expected)


def test_a_score_per_case_is_itself() -> None:
    cases = pd.DataFrame({"case": ["a", "b"], "dice": [0.5, np.nan]})
    np.testing.assert_array_equal(contributions(cases, "dice"), [0.5, np.nan])


@pytest.mark.parametrize("metric", ["iou", "auc/gout", "concordance"])
def test_an_unknown_metric_lists_those_there_are(metric: str) -> None:
    with pytest.raises(UsageError, match=r"there are: auc, auc/mass, auc/hernia"):
        contributions(findings(), metric)


def test_one_case_of_a_class_leaves_the_score_what_it_is() -> None:
    """It cannot be left out, so nothing is known of the spread; the mean is still the AUC of the record."""
    cases = findings()
    cases["truth/mass"] = 0.0
    cases.loc[5, "truth/mass"] = 1.0
    names = ("mass", "hernia")
    expected = np.mean([roc_auc_score(cases[f"truth/{name}"], cases[f"score/{name}"]) for name in names])
    assert contributions(cases, "auc").mean() == pytest.approx(expected)
