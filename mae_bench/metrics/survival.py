"""Concordance of predicted risks with censored outcomes."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def comparable(time: Numbers, event: Numbers) -> NDArray[np.bool_]:
    """Whether case i is known to come before case j, (N, N)."""
    earlier: NDArray[np.bool_] = (time[:, None] < time[None, :]) & (event[:, None] > 0)
    # At one time, one that had the event comes before one that was still seen without it.
    tied: NDArray[np.bool_] = (time[:, None] == time[None, :]) & (event[:, None] > 0) & (event[None, :] == 0)
    return earlier | tied


def concordance(time: Numbers, event: Numbers, risk: Numbers) -> float:
    """Harrell's concordance index (1982): share of comparable pairs whose order the risks tell, ties counting half.

    A pair is comparable when the earlier time is an event. NaN when there is none.

    Args:
        time: (N,) of event or censoring.
        event: (N,) 1 when it happened, 0 when censored.
        risk: (N,) higher is earlier.
    """
    earlier = comparable(time, event)
    pairs = int(earlier.sum())
    if not pairs:
        return float("nan")
    right = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    return float((right * earlier).sum() / pairs)
