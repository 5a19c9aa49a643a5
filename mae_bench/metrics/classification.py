"""Area under the ROC curve."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Numbers = NDArray[np.float64]


def aucs(truth: Numbers, score: Numbers) -> Numbers:
    """AUC of each finding, (cases, findings) to (findings,), by the ranks of the positives (Mann and Whitney 1947).

    NaN for a finding on which all cases agree (it is not scored 0; PAPER D10).
    """
    positive = truth.sum(axis=0)
    negative = len(truth) - positive
    above = (rankdata(score, axis=0) * truth).sum(axis=0) - positive * (positive + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above / (positive * negative), np.float64)


def auc(truth: Numbers, score: Numbers) -> float:
    """AUC of one finding, (cases,); see `aucs`."""
    return float(aucs(truth[:, None], score[:, None])[0])


def mean_auc(truth: Numbers, score: Numbers) -> float:
    """Mean over the findings that can be scored, (cases, findings); NaN when none can."""
    return known_mean(aucs(truth, score))


def known_mean(values: Numbers) -> float:
    """Mean of what is not NaN; NaN when nothing is left."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
