"""What may be claimed when two methods were run on the same cases and seeds."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mae_bench.errors import InputError, UsageError
from mae_bench.record import ResultRecord
from mae_bench.spec import Federation
from mae_bench.standings import lower_is_better, method_table, paired_table
from mae_bench.stats.bootstrap import LEVEL, Interval, two_way_interval
from mae_bench.stats.mixed import Needed, Test, components, difference_test, needed
from mae_bench.store import Store

CHOICES = ("dataset", "backbone", "pretrain", "head")
PAIRED = ("seed", "pretrain_seed")


@dataclass(frozen=True)
class Comparison:
    """A minus B on the same seeds and cases. sentence: what may be claimed.

    difference: with the interval of the test that gives `p` (stats/mixed.py). bootstrap: the same by hierarchical
    bootstrap, for readers who know that one. needed: seeds or cases that would find a difference of this size, from two
    seeds on. by_case: A minus B, mean over seeds. keys: of the two records of the first seed.
    """

    metric: str
    mean_a: float
    mean_b: float
    difference: Interval
    bootstrap: Interval
    p: float
    needed: Needed
    seeds: int
    cases: int
    differing: tuple[str, ...]
    sentence: str
    by_case: dict[str, float]
    keys: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        values = asdict(self)
        return values | {name: values[name]._asdict() for name in ("difference", "bootstrap", "needed")}


def field_of(record: ResultRecord, name: str) -> Any:
    """A field of the specification by its short name: dataset, protocol, pretrain.ratio, labels, seed, kind."""
    spec = record.spec
    first, _, rest = name.partition(".")
    if first in CHOICES:
        choice = getattr(spec, first)
        return choice.options.get(rest) if rest else choice.name
    if first == "federation":
        federation = spec.federation
        if not rest:
            return "none" if federation is None else f"{federation.sites} sites"
        if rest in Federation.model_fields:
            return None if federation is None else getattr(federation, rest)
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
        "recipe, labels, seed, pretrain_seed, federation, federation.partition, kind or status"
    )


def select(records: Sequence[ResultRecord], conditions: Sequence[str]) -> list[ResultRecord]:
    """The records for which every `field=value` holds."""
    pairs = []
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            raise UsageError(f"{condition!r}: expected field=value")
        pairs.append((name, value))
    return [record for record in records if all(_equal(field_of(record, name), value) for name, value in pairs)]


def _equal(field: Any, text: str) -> bool:
    """Whether a field is what the user wrote; a number may be written in any way."""
    if isinstance(field, bool):
        return str(field).lower() == text.lower()
    if not isinstance(field, int | float):
        return str(field) == text
    try:
        return float(field) == float(text)
    except ValueError:
        return False


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
    for pair in pairs:
        _same_question(*pair)
    metric = metric or pairs[0][0].main_metric
    first, second = (
        method_table({record.spec.seed: read_cases(store, record) for record in side}, metric)
        for side in zip(*pairs, strict=True)
    )
    known = ~(first.isna() | second.isna()).any(axis=1)
    if known.sum() < 2:
        raise InputError(f"{metric}: fewer than two cases have a score under both methods")
    table = paired_table(first, second)
    test = difference_test(table)
    # The same by hierarchical bootstrap, for readers who know that one.
    bootstrap = two_way_interval(table)
    assert bootstrap is not None
    several = len(pairs) > 1
    more = needed(components(table), test.difference.value, *table.shape) if several else Needed(None, None)
    differing = _differing(*pairs[0])
    shape = (len(pairs), int(known.sum()))
    # What was asked about is no surprise; whatever else differs must be said.
    asked = {condition.split("=")[0].split(".")[0] for side in (a, b) for condition in side.split(",") if "=" in side}
    besides = tuple(name for name in differing if name not in {*asked, *PAIRED})
    return Comparison(
        metric,
        float(first[known].to_numpy().mean()),
        float(second[known].to_numpy().mean()),
        test.difference,
        bootstrap,
        test.p,
        more,
        *shape,
        differing,
        _sentence(a, b, metric, test, shape, more, besides),
        dict(zip(map(str, first.index[known]), table.mean(axis=0).tolist(), strict=True)),
        (pairs[0][0].key, pairs[0][1].key),
    )


FIGURED = 3  # cases at each end of a figure


def draw_comparison(store: Store, found: Comparison, a: str, b: str, path: Path) -> None:
    """Draw the cases that A improves most over B, then those it worsens most, as the first seed they share has them.

    Raises:
        InputError: the runs have kept no slices (classification, or an older version).
    """
    from mae_bench.engine import pictures

    first, second = (pictures.read_slices(store.folder("models", key) / pictures.SLICES) for key in found.keys)
    sign = -1 if lower_is_better(found.metric) else 1
    order = sorted(found.by_case, key=lambda case: -sign * found.by_case[case])
    count = min(FIGURED, len(order) // 2)
    chosen = [*order[:count], *reversed(order[len(order) - count :])]
    titles = [f"{case}: A - B = {found.by_case[case]:+.3f} {found.metric}" for case in chosen]
    pictures.differences([(first[case], second[case]) for case in chosen], titles, (a, b), path)


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
    first, *others = table.values()
    for other in others:
        if apart := [name for name in _differing(first, other) if name not in PAIRED]:
            raise UsageError(
                f"{selector!r} matches another method under seed {other.spec.seed} than under {first.spec.seed}: they "
                f"differ in {', '.join(apart)}; say which"
            )
    return table


def _differing(a: ResultRecord, b: ResultRecord) -> tuple[str, ...]:
    """Names of the parts of the specification in which two records differ."""
    words = {"protocol": {"summary"}, "recipe": {"summary"}}
    first, second = (record.spec.model_dump(mode="json", exclude=words) for record in (a, b))
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


def read_cases(store: Store, record: ResultRecord) -> pd.DataFrame:
    """The per-case scores of a record, in the order of its test cases."""
    path = store.cases_path(record.key)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: missing: the record of {record.key} has lost its per-case scores") from None
    if record.cases is not None and hashlib.sha256(text).hexdigest() != record.cases.sha256:
        raise InputError(f"{path}: changed since the record was written", "run the cell again in another store")
    # As texts first: cases may be called `001` or `NA`.
    table = pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False).set_index("case")
    table = table.replace("", "nan").astype(float)
    if sorted(table.index) != sorted(record.data.split.test):
        raise InputError(f"{path}: its cases are not the test cases of the record")
    return table.loc[list(record.data.split.test)].reset_index()


def _sentence(
    a: str, b: str, metric: str, test: Test, shape: tuple[int, int], more: Needed, besides: Sequence[str]
) -> str:
    basis = f"{shape[0]} seed{'s' * (shape[0] > 1)} on {shape[1]} cases"
    alone = f" (they also differ in {', '.join(besides)})" if besides else ""
    chance = f"p = {test.p:.2g}" if test.p >= 0.0001 else "p < 0.0001"
    if test.p < 1 - LEVEL:
        better = a if (test.difference.value > 0) != lower_is_better(metric) else b
        one = "; one seed: nothing is said of other seeds" if shape[0] == 1 else ""
        return f"{better} is better by {abs(test.difference.value):.4f} {metric} over {basis}, {chance}{one}{alone}"
    ways = [f"{count} {what}" for count, what in ((more.seeds, "seeds"), (more.cases, "test cases")) if count]
    advice = f"; if it is what was seen, {' or '.join(ways)} would show it four times in five" if ways else ""
    if shape[0] == 1:
        advice = "; run more seeds: how many it takes cannot be told from one"
    return f"no difference in {metric} may be claimed over {basis}, {chance}{advice}{alone}"
