"""From scores per case to the scores of a record, with intervals. Whoever holds the table can make them again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mae_bench.metrics.classification import aucs, known_mean
from mae_bench.metrics.survival import concordance
from mae_bench.record import Metric
from mae_bench.stats.bootstrap import Interval, mean_interval, statistic_interval, statistic_intervals
from mae_bench.task import Protocol, Task


class Scores(NamedTuple):
    """cases: one row per test case. metrics: with intervals; the first one named is the main metric."""

    cases: pd.DataFrame
    metrics: dict[str, Metric]
    main: str


def summarise(cases: pd.DataFrame, protocol: Protocol) -> Scores:
    """The scores of a table that a record leaves; its columns tell the kind of task.

    Raises:
        ValueError: the columns are those of no task.
    """
    columns = [str(name) for name in cases.columns if name != "case"]
    if findings := findings_of(columns):
        return _findings(cases, findings)
    if set(columns) == {"time", "event", "risk"}:
        return summarise_risks(cases)
    if columns[:2] == ["dice", "hd95"] and all(name.startswith(("dice", "hd95")) for name in columns):
        return _regions(cases, columns, protocol)
    raise ValueError("its columns are those of no task: dice, hd95, …; truth/NAME, score/NAME; or time, event, risk")


def findings_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Names of the findings of a classification; none when the columns are of something else."""
    names = tuple(name.removeprefix("score/") for name in columns if name.startswith("score/"))
    return names if sorted(columns) == sorted(f"{side}/{name}" for name in names for side in ("truth", "score")) else ()


def point_values(cases: pd.DataFrame) -> dict[str, float]:
    """The scores alone, without intervals; NaN where no case could be scored. The columns are those of a task."""
    columns = [str(name) for name in cases.columns if name != "case"]
    if findings := findings_of(columns):
        each = aucs(*_sides(cases, findings))
        return {"auc": known_mean(each)} | {
            f"auc/{name}": float(value) for name, value in zip(findings, each, strict=True)
        }
    if "risk" in columns:
        return {"concordance": concordance(*_outcomes(cases))}
    return {name: known_mean(cases[name].to_numpy(float)) for name in columns}


def summarise_regions(cases: pd.DataFrame, task: Task, protocol: Protocol) -> Scores:
    """Mean over cases of every column, with its interval; `dice` leads."""
    names = ["dice", "hd95", *(f"{metric}/{region.name}" for metric in ("dice", "hd95") for region in task.regions)]
    return _regions(cases, names, protocol)


def summarise_findings(cases: pd.DataFrame, task: Task) -> Scores:
    """AUC of every finding and their mean, with intervals over resampled cases; `auc` leads."""
    return _findings(cases, task.findings)


def summarise_risks(cases: pd.DataFrame) -> Scores:
    """Concordance index, with its interval over resampled cases."""
    time, event, risk = _outcomes(cases)
    interval = statistic_interval(len(cases), lambda drawn: concordance(time[drawn], event[drawn], risk[drawn]))
    return Scores(cases, {"concordance": metric_of(interval, "1")}, "concordance")


def metric_of(interval: Interval | None, unit: str) -> Metric:
    """An interval as a record holds it."""
    if interval is None:
        return Metric(value=None, low=None, high=None, unit=unit)
    return Metric(value=interval.value, low=interval.low, high=interval.high, unit=unit)


def _regions(cases: pd.DataFrame, names: Sequence[str], protocol: Protocol) -> Scores:
    metrics = {
        name: metric_of(
            mean_interval(cases[name].to_numpy(float)), protocol.distance_unit if name.startswith("hd95") else "1"
        )
        for name in names
    }
    return Scores(cases[["case", *names]], metrics, "dice")


def _findings(cases: pd.DataFrame, findings: Sequence[str]) -> Scores:
    truth, score = _sides(cases, findings)

    def statistics(drawn: NDArray[np.intp]) -> NDArray[np.float64]:
        each = aucs(truth[drawn], score[drawn])
        return np.array([known_mean(each), *each])

    names = ["auc", *(f"auc/{name}" for name in findings)]
    intervals = statistic_intervals(len(cases), statistics)
    metrics = {name: metric_of(interval, "1") for name, interval in zip(names, intervals, strict=True)}
    return Scores(cases, metrics, "auc")


def _sides(cases: pd.DataFrame, findings: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, score = (cases[[f"{side}/{name}" for name in findings]].to_numpy(float) for side in ("truth", "score"))
    return truth, score


def _outcomes(cases: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    time, event, risk = (cases[name].to_numpy(float) for name in ("time", "event", "risk"))
    return time, event, risk
