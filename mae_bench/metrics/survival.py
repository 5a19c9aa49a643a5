"""Concordance of predicted risks with censored outcomes."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def concordance(time: Numbers, event: Numbers, risk: Numbers) -> float:
    """Harrell's concordance index (1982): share of comparable pairs whose order the risks tell, ties counting half.

    A pair is comparable when the earlier time is an event. NaN when there is none.

    Args:
        time: (N,) of event or censoring.
        event: (N,) 1 when it happened, 0 when censored.
        risk: (N,) higher is earlier.
    """
    earlier = (time[:, None] < time[None, :]) & (event[:, None] > 0)
    # At one time, one that had the event comes before one that was still seen without it.
    earlier |= (time[:, None] == time[None, :]) & (event[:, None] > 0) & (event[None, :] == 0)
    pairs = int(earlier.sum())
    if not pairs:
        return float("nan")
    right = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    return float((right * earlier).sum() / pairs)
