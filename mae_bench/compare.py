"""What may be claimed when two methods were run on the same cases and seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from mae_bench.errors import InputError, UsageError
from mae_bench.record import ResultRecord
from mae_bench.stats import Interval, Scores, paired_difference
from mae_bench.store import Store

CHOICES = ("dataset", "backbone", "pretrain", "head")
PAIRED = ("seed", "pretrain_seed")


@dataclass(frozen=True)
class Comparison:
    """A minus B on the same seeds and cases. sentence: what may be claimed."""

    metric: str
    mean_a: float
    mean_b: float
    difference: Interval
    seeds: int
    cases: int
    differing: tuple[str, ...]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return asdict(self) | {"difference": self.difference._asdict()}


def field_of(record: ResultRecord, name: str) -> Any:
    """A field of the specification by its short name: dataset, protocol, pretrain.ratio, labels, seed, kind."""
    spec = record.spec
    first, _, rest = name.partition(".")
    if first in CHOICES:
        choice = getattr(spec, first)
        return choice.options.get(rest) if rest else choice.name
    if name in ("protocol", "recipe"):
        return getattr(spec, name).name
    if name == "kind":
        return record.data.kind
    if name in ("labels", *PAIRED):
        return getattr(spec, name)
    if name in ("key", "status"):
        return getattr(record, name)
    raise UsageError(
        f"{name!r} is no field of a record; try dataset, protocol, backbone, pretrain, pretrain.ratio, head, "
        "recipe, labels, seed, pretrain_seed, kind or status"
    )


def select(records: Sequence[ResultRecord], conditions: Sequence[str]) -> list[ResultRecord]:
    """The records for which every `field=value` holds."""
    pairs = []
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            raise UsageError(f"{condition!r}: expected field=value")
        pairs.append((name, value))
    return [record for record in records if all(str(field_of(record, name)) == value for name, value in pairs)]


def compare(store: Store, a: str, b: str, where: Sequence[str], metric: str | None) -> Comparison:
    """Pair the records that `a` and `b` select by their seeds, and compare them case by case.

    Raises:
        UsageError: nothing selected, or several records for one seed.
        InputError: the records are not comparable: other images, protocol or labels.
    """
    done = [record for record in select(store.records(), where) if record.status == "ok"]
    table_a, table_b = _by_seed(done, a), _by_seed(done, b)
    shared = sorted(set(table_a) & set(table_b))
    if not shared:
        raise UsageError(f"{a} has seeds {sorted(table_a)}, {b} has {sorted(table_b)}: none in common")
    pairs = [(table_a[seed], table_b[seed]) for seed in shared]
    for first, second in pairs:
        _same_question(first, second)
    metric = metric or pairs[0][0].main_metric
    scores_a, scores_b = (_scores(store, [pair[side] for pair in pairs], metric) for side in (0, 1))
    difference = paired_difference(scores_a, scores_b)
    differing = _differing(*pairs[0])
    return Comparison(
        metric,
        float(np.nanmean(scores_a)),
        float(np.nanmean(scores_b)),
        difference,
        len(scores_a),
        scores_a.shape[1],
        differing,
        _sentence(a, b, metric, difference, scores_a.shape, differing),
    )


def _by_seed(records: Sequence[ResultRecord], selector: str) -> dict[int, ResultRecord]:
    if "=" in selector:
        chosen = select(records, selector.split(","))
    else:
        chosen = [record for record in records if record.key.startswith(selector)]
    if not chosen:
        raise UsageError(f"no finished record matches {selector!r}; `mae-bench results list` shows what there is")
    table: dict[int, ResultRecord] = {}
    for record in chosen:
        # Not by the pre-training seed: a method without pre-training has no use for one.
        seed = record.spec.seed
        if seed in table:
            differing = ", ".join(_differing(table[seed], record))
            raise UsageError(
                f"{selector!r} matches several records with seed {seed}: they differ in {differing}; say which"
            )
        table[seed] = record
    return table


def _differing(a: ResultRecord, b: ResultRecord) -> tuple[str, ...]:
    """Names of the parts of the specification in which two records differ."""
    first, second = (record.spec.model_dump(mode="json") for record in (a, b))
    return tuple(name for name in first if first[name] != second[name])


def _same_question(a: ResultRecord, b: ResultRecord) -> None:
    for what, first, second in (
        ("images", a.data.fingerprint, b.data.fingerprint),
        ("protocols", *(record.spec.protocol.model_dump(exclude={"summary"}) for record in (a, b))),
        ("test cases", a.data.split.test, b.data.split.test),
        ("labelled cases", a.data.labelled, b.data.labelled),
    ):
        if first != second:
            raise InputError(f"{a.key} and {b.key} cannot be compared: their {what} differ")


def _scores(store: Store, records: Sequence[ResultRecord], metric: str) -> Scores:
    """(seeds, cases) of one column of the per-case files."""
    rows = []
    for record in records:
        path = store.cases_path(record.key)
        if not path.is_file():
            raise InputError(f"{path}: missing: the record of {record.key} has lost its per-case scores")
        table = pd.read_csv(path, index_col="case").sort_index()
        if metric not in table:
            raise UsageError(f"no metric {metric!r} per case; there are: {', '.join(table.columns)}")
        rows.append(table[metric].to_numpy(float))
    return np.array(rows)


def _sentence(
    a: str, b: str, metric: str, difference: Interval, shape: tuple[int, ...], differing: tuple[str, ...]
) -> str:
    lower_is_better = metric.startswith("hd95")
    basis = f"{shape[0]} seed{'s' * (shape[0] > 1)} on {shape[1]} cases"
    alone = "" if set(differing) <= {*CHOICES, *PAIRED} else f" (they also differ in {', '.join(differing)})"
    if difference.low > 0 or difference.high < 0:
        better = a if (difference.value > 0) != lower_is_better else b
        return (
            f"{better} is better by {abs(difference.value):.4f} {metric} over {basis}; the interval leaves out 0{alone}"
        )
    return f"no difference in {metric} may be claimed over {basis}: the interval holds 0{alone}"
