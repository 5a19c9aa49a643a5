"""`mae-bench show`: one run with its pictures."""

import subprocess
import sys
from typing import Annotated

import typer
from rich.console import RenderableType

from mae_bench.cli import output
from mae_bench.record import Metric, ResultRecord
from mae_bench.store import Store


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(show)


def show(
    key: Annotated[str, typer.Argument(help="key of a run, or the start of it")],
    opened: Annotated[
        bool, typer.Option("--open/--no-open", help="open the pictures in a viewer")
    ] = sys.stdout.isatty(),
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Print a run, where its files lie, and open its pictures."""
    place = output.open_store(store)
    record = place.find(key)
    found = files(record, place)
    output.show(record.to_json() | {"files": found}, as_json, lambda: record_table(record, place))
    if opened and not as_json:
        viewer = "open" if sys.platform == "darwin" else "xdg-open"
        for path in found.values():
            if path.endswith(".png"):
                try:
                    subprocess.run([viewer, path], check=False, stderr=subprocess.DEVNULL)
                except FileNotFoundError:
                    break


def files(record: ResultRecord, store: Store) -> dict[str, str]:
    """The files of a run that exist."""
    encoder, model = store.folder("encoders", record.spec.pretrain_key()), store.folder("models", record.key)
    places = {
        "record": store.record_path(record.key),
        "cases": store.cases_path(record.key),
        "reconstruction": encoder / "reconstruction.png",
        "overlays": model / "overlays.png",
        "predictions": model / "predictions",
        "encoder": encoder / "encoder.safetensors",
        "model": model / "model.safetensors",
    }
    return {name: str(path) for name, path in places.items() if path.exists()}


def metric_text(metric: Metric) -> tuple[str, str]:
    """Value and interval as texts."""
    if metric.value is None or metric.low is None or metric.high is None:
        return "-", "-"
    digits = 1 if metric.unit in ("mm", "voxel") else 4
    return f"{metric.value:.{digits}f}", f"{metric.low:.{digits}f} to {metric.high:.{digits}f}"


def dataset_text(record: ResultRecord) -> str:
    """The data set's name; a stand-in is called so."""
    return record.spec.dataset.name + (" demo" if record.data.kind == "demo" else "")


def record_table(record: ResultRecord, store: Store) -> RenderableType:
    """The scores of a run with their intervals, and where its files lie."""
    spec = record.spec
    lines = [] if record.status == "ok" else [f"{record.status}: {record.reason}"]
    if record.cost:
        lines.append(
            f"{len(record.data.split.test)} test cases; trained for {record.cost.wall_s:.0f} s on {record.cost.device}"
        )
    return output.make_table(
        f"{record.key}  {dataset_text(record)} ({spec.protocol.name}), {spec.backbone.name}, {spec.pretrain.name}, "
        f"{spec.head.name}, {len(record.data.labelled)} labelled, seed {spec.seed}",
        ["metric", "value", "95 % interval", "unit"],
        [(name, *metric_text(metric), metric.unit) for name, metric in record.metrics.items()],
        below=lines + [f"{name}: {path}" for name, path in files(record, store).items()],
    )
