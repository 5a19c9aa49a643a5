"""`mae-bench results`: records in the store, and what may be claimed from them."""

from pathlib import Path
from typing import Annotated

import typer

from mae_bench.cli import output
from mae_bench.cli.show import metric_text, record_table

app = typer.Typer(no_args_is_help=True, help="List, show and compare results.")

Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="FIELD=VALUE", help="only such records, for example dataset=brats, labels=0.1"),
]


@app.command("list")
def list_results(where: Where = None, store: output.StoreOption = None, as_json: output.JsonOption = False) -> None:
    """List the records of the store."""
    from mae_bench.compare import field_of, select

    records = select(output.open_store(store).records(), where or [])
    columns = [
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
    ]
    documents = [
        {"key": record.key, "status": record.status}
        | {column: field_of(record, column) for column in columns}
        | {
            "metric": record.main_metric,
            **(record.metrics[record.main_metric].model_dump() if record.main_metric else {}),
        }
        for record in records
    ]
    rows = [
        (
            record.key,
            record.status,
            *(field_of(record, column) for column in columns),
            record.main_metric,
            *(metric_text(record.metrics[record.main_metric]) if record.main_metric else ("-", "-")),
        )
        for record in records
    ]
    output.show(
        documents,
        as_json,
        lambda: output.make_table("results", ["key", "status", *columns, "metric", "value", "95 % interval"], rows),
    )


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
