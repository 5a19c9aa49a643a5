"""Outcomes of brain tumour cases: read beside the images, and drawn for the stand-in."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mae_bench.data.outcomes import COLUMNS, read_outcomes
from mae_bench.interfaces import Layout
from mae_bench.store import write_bytes

FILES = ("outcomes.csv", "survival_info.csv")
SHAPE = 1.4  # of the Weibull distribution: hazard grows with time
SCALE = 480.0  # days, of a tumour of 60 ml with 15 ml that enhance
PER_VOLUME, PER_ENHANCING = 1.6, 0.9  # rise of the log-hazard when a volume grows e-fold
STUDY = (250.0, 1400.0)  # days of follow-up before a case is censored, from and to


def with_outcomes(layout: Layout) -> Layout:
    """The cases with time and event as findings. Those without an outcome are problems: dropping them is for the user.

    Raises:
        InputError: there is no table of outcomes, or a faulty one.
    """
    path = next((layout.root / name for name in FILES if (layout.root / name).is_file()), layout.root / FILES[0])
    outcomes = read_outcomes(path)
    return replace(
        layout,
        cases=tuple(replace(case, findings=outcomes[case.id]) for case in layout.cases if case.id in outcomes),
        problems=layout.problems
        | {case.id: f"{path}: no outcome of {case.id}" for case in layout.cases if case.id not in outcomes},
    )


def write_outcomes(root: Path, volumes: Mapping[str, tuple[float, float]]) -> None:
    """Draw outcomes whose hazard rises with the volumes (ml) of the whole and of the enhancing tumour.

    Weibull times with proportional hazards (Bender et al. 2005), censored at a follow-up drawn evenly from STUDY.
    """
    text = io.StringIO()
    print(*COLUMNS, sep=",", file=text)
    for number, (case, (whole, enhancing)) in enumerate(volumes.items()):
        rng = np.random.default_rng([2, number])
        risk = log_hazard(whole, enhancing)
        death = SCALE * (rng.exponential() / np.exp(risk)) ** (1 / SHAPE)
        end = rng.uniform(*STUDY)
        print(case, max(1, round(min(death, end))), int(death <= end), sep=",", file=text)
    write_bytes(root / FILES[0], text.getvalue().encode())


def log_hazard(whole: float, enhancing: float) -> float:
    """Log-hazard ratio to a tumour of 60 ml with 15 ml that enhance."""
    return float(PER_VOLUME * np.log((whole + 1) / 61) + PER_ENHANCING * np.log((enhancing + 1) / 16))
