"""What a record must keep to stand on a board. Each law yields what is wrong, in words that name the field."""

import re
from collections.abc import Callable, Iterator

import numpy as np

from mae_bench.leaderboard.submission import Submission
from mae_bench.record import Metric
from mae_bench.stats.summary import findings_of, point_values, summarise
from mae_bench.values import digest

Law = Callable[[Submission], Iterator[str]]
SHA256 = re.compile(r"[0-9a-f]{64}")
TOLERANCE = 1e-6  # sums taken in another order differ by less; a changed score differs by more
# Above these an interval takes minutes or the memory of a laptop to make again; the scores themselves are always made.
MOST_RANKED, MOST_PAIRED = 20_000, 300
MOST_OUTCOMES = 4_000


def broken_laws(submission: Submission, *, intervals: bool = True) -> Iterator[str]:
    """Everything that is wrong with one record. intervals: make them again as well, which takes longer."""
    laws: list[Law] = [_key, _finished, _board, _same_data, _split, _scores_in_range, _values, _units]
    found = [fault for law in laws for fault in law(submission)]
    if intervals and not found and can_remake_intervals(submission):
        found += _intervals(submission)
    yield from found


def can_remake_intervals(submission: Submission) -> bool:
    """Whether the intervals can be made again here; of the largest data sets they are believed, and `check` says so."""
    cases = submission.cases
    if "risk" in cases:
        return len(cases) <= MOST_PAIRED
    return "dice" in cases or len(cases) * (len(cases.columns) - 1) <= MOST_RANKED


def is_demo_board(name: str) -> bool:
    """Whether a folder is for records of stand-in data: `demo` is a word of its name."""
    return "demo" in name.lower().replace("_", "-").split("-")


def _key(submission: Submission) -> Iterator[str]:
    record, key = submission.record, submission.spec_key
    name = submission.folder / f"{record.key}.json"
    if not name.is_file():
        yield f"key: {record.key} is not the name of the file"
    if record.key == key:
        return
    if submission.written_key == record.key:
        yield f"key: superseded: specifications have fields now that this one lacks (it would be {key}); run it again"
    else:
        yield f"key: {record.key}, but the specification has {key}"


def _finished(submission: Submission) -> Iterator[str]:
    record = submission.record
    if record.status != "ok":
        yield f"status: {record.status}; boards hold finished runs"
    elif record.main_metric not in record.metrics:
        yield f"main_metric: {record.main_metric[:80]!r} is not among its metrics"
    if record.spec.protocol.version < 1:
        yield f"spec.protocol.version: {record.spec.protocol.version}; versions count from 1"


def _board(submission: Submission) -> Iterator[str]:
    kind, demo = submission.record.data.kind, is_demo_board(submission.board)
    if kind == "demo" and not demo:
        yield f"data.kind: demo records never enter a real board, and {submission.board!r} is one"
    if kind == "real" and demo:
        yield f"data.kind: {submission.board!r} is a board for demo records, this one is real"


def _same_data(submission: Submission) -> Iterator[str]:
    """What the key covers and what the record shows must be the same."""
    spec, data = submission.record.spec.data, submission.record.data
    if spec.kind != data.kind:
        yield f"data.kind: {data.kind}, but spec.data.kind is {spec.kind}"
    if spec.fingerprint != data.fingerprint:
        yield "data.fingerprint: not the one of the specification"
    if spec.split != digest(data.split.model_dump(mode="json")):
        yield "data.split: not the one whose digest the specification holds"
    if tuple(sorted(data.skipped)) != spec.skipped:
        yield "data.skipped: not the cases that the specification leaves out"


def _split(submission: Submission) -> Iterator[str]:
    data, rules = submission.record.data, submission.record.spec.protocol
    sides = {name: getattr(data.split, name) for name in ("train", "val", "test")}
    for name, cases in sides.items():
        if len(set(cases)) < len(cases):
            yield f"data.split.{name}: a case is there twice"
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = set(sides[first]) & set(sides[second])
        if shared and not ((first, second) == ("val", "test") and rules.selection == "test"):
            yield f"data.split: {len(shared)} cases are in both {first} and {second}"
    if not set(data.labelled) <= set(data.split.train):
        yield "data.labelled: cases that are not training cases"
    known = {case for cases in sides.values() for case in cases}
    if set(data.identities) != known:
        yield "data.identities: not of the cases of the split"
    if not all(SHA256.fullmatch(identity.sha256) for identity in data.identities.values()):
        yield "data.identities: a hash that is no SHA-256"


def _scores_in_range(submission: Submission) -> Iterator[str]:
    cases, rules = submission.cases, submission.record.spec.protocol
    columns = [str(name) for name in cases.columns if name != "case"]
    for name in columns:
        values = cases[name].to_numpy(float)
        side = name.partition("/")[0]
        if side in ("dice", "hd95"):
            known = values[np.isfinite(values)]
            if (known < 0).any() or (side == "dice" and (known > 1).any()):
                yield f"cases: {name}: scores out of range"
            if rules.empty == "score" and len(known) < len(values):
                missing = len(values) - len(known)
                yield f"cases: {name}: {missing} cases without a score; protocol {rules.name} scores every case"
        elif not np.isfinite(values).all():
            yield f"cases: {name}: empty cells"
        elif side in ("truth", "event") and not np.isin(values, (0, 1)).all():
            yield f"cases: {name}: must be 0 or 1"
    if "risk" in columns and len(cases) > MOST_OUTCOMES:
        yield f"cases: {len(cases)} outcomes; at most {MOST_OUTCOMES} can be compared in pairs"


def _values(submission: Submission) -> Iterator[str]:
    """Scores made again from the cases, not believed."""
    record, columns = submission.record, [str(name) for name in submission.cases.columns if name != "case"]
    regions = columns[:2] == ["dice", "hd95"] and all(name.startswith(("dice", "hd95")) for name in columns)
    if not (regions or findings_of(columns) or set(columns) == {"time", "event", "risk"}):
        yield "cases: the columns are those of no task"
        return
    if "risk" in columns and len(submission.cases) > MOST_OUTCOMES:
        return
    again = point_values(submission.cases)
    if set(again) != set(record.metrics):
        yield "metrics: not those that the per-case scores give"
        return
    if record.main_metric not in ("dice", "auc", "concordance"):
        yield f"main_metric: {record.main_metric} does not lead a board"
    for name, value in again.items():
        if not _close(record.metrics[name].value, value if np.isfinite(value) else None):
            yield f"metrics.{name}: {record.metrics[name].value}, but the per-case scores give {value:.6g}"


def _units(submission: Submission) -> Iterator[str]:
    record = submission.record
    for name, metric in record.metrics.items():
        unit = record.spec.protocol.distance_unit if name.partition("/")[0] == "hd95" else "1"
        if metric.unit != unit:
            yield f"metrics.{name[:80]}.unit: {metric.unit[:80]!r} instead of {unit!r}"
        if metric.value is not None and metric.low is not None and metric.high is not None:
            slack = TOLERANCE * max(1.0, abs(metric.value))
            if not metric.low - slack <= metric.value <= metric.high + slack:
                yield f"metrics.{name[:80]}: {metric.value} lies outside its interval {_interval(metric)}"


def _intervals(submission: Submission) -> Iterator[str]:
    record, cases = submission.record, submission.cases
    for name, made in summarise(cases, record.spec.protocol).metrics.items():
        told = record.metrics[name]
        if not (_close(told.low, made.low) and _close(told.high, made.high)):
            yield f"metrics.{name}: interval {_interval(told)}, but the per-case scores give {_interval(made)}"


def _close(told: float | None, made: float | None) -> bool:
    if told is None or made is None:
        return told is made
    return abs(told - made) <= TOLERANCE * max(1.0, abs(made))


def _interval(metric: Metric) -> str:
    return "none" if metric.low is None or metric.high is None else f"{metric.low:.6g} to {metric.high:.6g}"
