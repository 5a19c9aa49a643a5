"""`mae-bench results`: records in the store, and what may be claimed from them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from mae_bench.cli import output
from mae_bench.cli.show import dataset_text, metric_text, record_table
from mae_bench.leaderboard.label import address_of, method_labels, method_of
from mae_bench.record import ResultRecord

app = typer.Typer(no_args_is_help=True, help="List, show and compare results.")

Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="FIELD=VALUE", help="only such records, for example dataset=brats, labels=0.1"),
]


FIELDS = (
    "dataset",
    "protocol",
    "backbone",
    "pretrain",
    "head",
    "recipe",
    "labels",
    "federation",
    "seed",
    "pretrain_seed",
)


@app.command("list")
def list_results(where: Where = None, store: output.StoreOption = None, as_json: output.JsonOption = False) -> None:
    """List the records of the store."""
    from mae_bench.compare import field_of, select

    records = select(output.open_store(store).records(), where or [])
    documents = [
        {"key": record.key, "status": record.status}
        | {field: field_of(record, field) for field in FIELDS}
        | {
            "metric": record.main_metric,
            **(record.metrics[record.main_metric].model_dump() if record.main_metric else {}),
        }
        for record in records
    ]
    output.show(documents, as_json, lambda: _list_table(records))


def _method_names(records: Sequence[ResultRecord]) -> dict[str, str]:
    """For each key the method's name, by what sets it apart from the others of its data set and protocol."""
    questions: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for record in records:
        questions[record.spec.dataset.name, record.spec.protocol.name][record.key] = method_of(record.spec)
    names: dict[str, str] = {}
    for methods in questions.values():
        labels = method_labels({address_of(method): method for method in methods.values()})
        names |= {key: labels[address_of(method)] for key, method in methods.items()}
    return names


def _list_table(records: Sequence[ResultRecord]) -> RenderableType:
    """One row per record; what all share is in the title."""
    names = _method_names(records)

    def place(record: ResultRecord) -> tuple[str, str, float, str, int]:
        spec = record.spec
        return spec.dataset.name, spec.protocol.name, spec.labels, names[record.key], spec.seed

    records = sorted(records, key=place)
    rows = [
        (
            record.key[:8],
            record.status,
            dataset_text(record),
            record.spec.protocol.name,
            names[record.key],
            f"{record.spec.labels:g}",
            _seeds(record),
            record.main_metric,
            *(metric_text(record.metrics[record.main_metric]) if record.main_metric else ("-", "-")),
        )
        for record in records
    ]
    once = ["status", "dataset", "protocol", "labels", "metric"]
    columns = ["key", "status", "dataset", "protocol", "method", "labels", "seed", "metric", "value", "95 % interval"]
    return output.make_table(f"{len(records)} records", columns, rows, once=once)


def _seeds(record: ResultRecord) -> str:
    """The seed, and that of its pre-training where it is another."""
    seed, pretrained = record.spec.seed, record.spec.pretrain_seed
    return str(seed) if seed == pretrained else f"{seed} on {pretrained}"


@app.command("show")
def show_result(
    key: Annotated[str, typer.Argument(help="key of a run, or the start of it")],
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Show one record."""
    place = output.open_store(store)
    record = place.find(key)
    output.show(record.to_json(), as_json, lambda: record_table(record, place))


@app.command("compare")
def compare_results(
    a: Annotated[str, typer.Argument(help="records of A: FIELD=VALUE[,FIELD=VALUE] or the start of a key")],
    b: Annotated[str, typer.Argument(help="records of B, likewise")],
    where: Where = None,
    metric: Annotated[str | None, typer.Option(help="column of the per-case scores [default: the main metric]")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="draw the cases that A improves and worsens most into this PNG")
    ] = None,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Compare two methods on the same cases and seeds, and say what may be claimed."""
    from mae_bench.compare import compare, draw_comparison

    place = output.open_store(store)
    found = compare(place, a, b, where or [], metric)
    if figure is not None:
        draw_comparison(place, found, a, b, figure)
    rows = [
        (f"A: {a}", f"{found.mean_a:.4f}"),
        (f"B: {b}", f"{found.mean_b:.4f}"),
        ("A - B", f"{found.difference.value:+.4f}"),
        ("95 % interval", f"{found.difference.low:+.4f} to {found.difference.high:+.4f}"),
        ("by bootstrap", f"{found.bootstrap.low:+.4f} to {found.bootstrap.high:+.4f}"),
        ("seeds x cases", f"{found.seeds} x {found.cases}"),
        ("claim", found.sentence),
    ]
    output.show(found.to_json(), as_json, lambda: output.make_table(f"compare {found.metric}", ["what", "value"], rows))
