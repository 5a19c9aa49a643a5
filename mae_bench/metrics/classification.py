"""Area under the ROC curve."""

import numpy as np
from numpy.typing import NDArray


def auc(truth: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    """AUC of one finding; NaN when all cases agree on it (a class with one value is not scored 0; PAPER D10)."""
    if len(np.unique(truth)) < 2:
        return float("nan")
    from sklearn.metrics import roc_auc_score  # heavy, and no listing needs it

    return float(roc_auc_score(truth, score))


def mean_auc(truth: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    """Mean over the findings that can be scored, (cases, findings); NaN when none can."""
    values = np.array([auc(truth[:, column], score[:, column]) for column in range(truth.shape[1])])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
