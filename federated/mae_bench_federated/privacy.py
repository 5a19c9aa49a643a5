"""Differential privacy of whole sites: an update is clipped, then Gaussian noise hides whose it was.

Central: the server clips each update and adds noise to their plain mean. Local: each site clips and adds noise before
it answers. Epsilon is told for what it is; with a handful of hospitals it is large at any noise that leaves a model
worth having. It is that of the weights: losses and numbers of cases are outside of it.
"""

import math
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from mae_bench.errors import UsageError
from mae_bench.spec import Federation
from mae_bench_federated.messages import Report
from mae_bench_federated.policy import distance
from mae_bench_federated.weights import Arrays, Values

ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [128, 256, 512, 1024]
MEANS = ("fedavg", "fedprox")  # strategies that take a mean, which is what the noise is for


def check(federation: Federation) -> None:
    """Refuse what cannot be accounted for.

    Raises:
        UsageError: no accountant is installed, there is no noise, or the strategy takes no mean.
    """
    if federation.privacy == "none":
        return
    if find_spec("opacus") is None:
        raise UsageError("--privacy needs an accountant: pip install 'mae-bench[federated]'")
    if federation.privacy == "central" and federation.strategy not in MEANS:
        raise UsageError(f"--privacy central adds noise to a mean: --strategy is {' or '.join(MEANS)}")


def clip(new: Arrays, old: Arrays, limit: float) -> dict[str, Values]:
    """Weights whose update is at most `limit` long (McMahan et al. 2018, flat clipping)."""
    length = distance(new, old)
    if length <= limit:
        return dict(new)
    return {name: old[name] + (new[name] - old[name]) * np.float32(limit / length) for name in new}


def add_noise(arrays: Arrays, deviation: float, rng: np.random.Generator) -> dict[str, Values]:
    """Gaussian noise on every weight; a variance stays one."""
    noisy = {
        name: value + (rng.standard_normal(value.shape, np.float32) * np.float32(deviation)).astype(value.dtype)
        for name, value in sorted(arrays.items())
    }
    return {name: np.maximum(value, 0) if name.endswith("running_var") else value for name, value in noisy.items()}


def hide(new: Arrays, old: Arrays, federation: Federation, rng: np.random.Generator) -> dict[str, Values]:
    """What a site may tell under local privacy."""
    return add_noise(clip(new, old, federation.clip), federation.noise * federation.clip, rng)


def equal_and_clipped(reports: Sequence[Report], old: Arrays, federation: Federation, asked: int) -> list[Report]:
    """Central privacy: each update clipped, and all of the same weight, as the noise presumes.

    The mean is over the `asked` sites, whoever answered: those that did not have learnt nothing. Else the divisor would
    tell of a site, and move the mean by more than the noise is made for.
    """
    told = [Report(clip(report.arrays, old, federation.clip), 1, report.losses) for report in reports]
    return told + [Report(dict(old), 1, ())] * (asked - len(told))


def deviation(federation: Federation, sites: int) -> float:
    """Of the noise on a mean of `sites` updates: noise * clip / sites."""
    return federation.noise * federation.clip / sites


def epsilon(federation: Federation, rounds: int) -> float:
    """Privacy spent after so many rounds, for the federation's delta.

    Renyi composition of Gaussian mechanisms, without amplification by sampling. Central: a site takes part or not,
    which moves the sum by `clip`. Local: whatever a site's images are, which moves its update by 2 * `clip`.
    """
    from opacus.accountants.analysis import rdp

    noise = federation.noise / (2 if federation.privacy == "local" else 1)
    spent = rdp.compute_rdp(q=1.0, noise_multiplier=noise, steps=rounds, orders=ORDERS)
    found, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=spent, delta=federation.delta)
    return float(found)


def event(federation: Federation, stage: str, rounds: int) -> dict[str, Any]:
    """What was spent, for the record."""
    spent = epsilon(federation, rounds)
    return {
        "event": "privacy",
        "stage": stage,
        "where": federation.privacy,
        "unit": "site",
        "neighbours": "replaced images" if federation.privacy == "local" else "with or without the site",
        "accountant": f"opacus {version('opacus')}, RDP",
        "epsilon": round(spent, 3) if math.isfinite(spent) else str(spent),
        "delta": federation.delta,
        "covers": "weights, not losses or numbers of cases"
        + ("; this stage alone, what the other spends comes on top" if federation.stages == "both" else ""),
    }
