"""What each case contributes to a score: columns of a table for means over cases, pseudovalues for other statistics.

A jackknife pseudovalue (Tukey 1958) is what a case adds to a statistic: n times the value on all cases less (n - 1)
times the value without it. In this form an AUC is compared as a Dice is, case by case; it is the form in which
Dorfman, Berbaum and Metz (1992) compare AUCs of several readers.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from mae_bench.errors import UsageError
from mae_bench.metrics.survival import comparable

Numbers = NDArray[np.float64]


def contributions(cases: pd.DataFrame, metric: str) -> Numbers:
    """One number per case whose mean is the score `metric`, (cases,). NaN where a case has none.

    Args:
        cases: the table that a record leaves: scores of a segmentation; truth/NAME and score/NAME of findings; time,
            event and risk.

    Raises:
        UsageError: no such metric.
    """
    if metric in cases.columns:
        return cases[metric].to_numpy(float)
    findings = [name.removeprefix("score/") for name in cases.columns if name.startswith("score/")]
    known = [f"auc/{name}" for name in findings]
    if (metric == "auc" and findings) or metric in known:
        chosen = findings if metric == "auc" else [metric.removeprefix("auc/")]
        each = np.array([_auc(cases[f"truth/{name}"], cases[f"score/{name}"]) for name in chosen])
        defined = each[np.isfinite(each).all(axis=1)]
        return defined.mean(axis=0) if len(defined) else np.full(len(cases), np.nan)
    if metric == "concordance" and {"time", "event", "risk"} <= set(cases.columns):
        return _concordance(*(cases[name].to_numpy(float) for name in ("time", "event", "risk")))
    there = [*(["auc", *known] if findings else []), *(name for name in cases.columns if name != "case")]
    raise UsageError(f"no metric {metric!r}; there are: {', '.join(there)}")


def _auc(truth: "pd.Series[float]", score: "pd.Series[float]") -> Numbers:
    """Pseudovalues of an AUC by its placements (DeLong et al. 1988); NaN without both classes.

    The one case of a class cannot be left out: then all are given the score itself, which says nothing of its spread.
    """
    positive, ranks = truth.to_numpy(float) > 0, score.to_numpy(float)
    above, below = int(positive.sum()), int((~positive).sum())
    if not min(above, below):
        return np.full(len(ranks), np.nan)
    whole, within = rankdata(ranks), np.empty(len(ranks))
    within[positive], within[~positive] = rankdata(ranks[positive]), rankdata(ranks[~positive])
    # Of a positive, the share of negatives below it; of a negative, the share of positives above it.
    placed = np.where(positive, (whole - within) / below, 1 - (whole - within) / above)
    value = float(placed[positive].mean())
    if min(above, below) == 1:
        return np.full(len(ranks), value)
    others = np.where(positive, above - 1, below - 1)
    without = value + (value - placed) / others
    return _pseudovalues(value, without)


def _concordance(time: Numbers, event: Numbers, risk: Numbers) -> Numbers:
    """Pseudovalues of Harrell's index: pairs that are told in the right order, over pairs that can be compared."""
    pairs = comparable(time, event).astype(float)
    right = pairs * ((risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :]))
    of_case = [each.sum(axis=0) + each.sum(axis=1) for each in (right, pairs)]
    left = pairs.sum() - of_case[1]
    if not pairs.sum() or (left == 0).any():
        return np.full(len(time), np.nan)
    return _pseudovalues(float(right.sum() / pairs.sum()), (right.sum() - of_case[0]) / left)


def _pseudovalues(value: float, without: Numbers) -> Numbers:
    """Pseudovalues moved so that their mean is the statistic itself: the jackknife's correction is left out."""
    found = len(without) * value - (len(without) - 1) * without
    return np.asarray(found - found.mean() + value, np.float64)
