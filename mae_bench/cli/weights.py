"""`mae-bench weights`: what is in a weights file, and from one layout to another."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mae_bench.cli import output
from mae_bench.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Inspect, import and export encoder weights.")

File = Annotated[Path, typer.Argument(help="weights file: safetensors, or a PyTorch checkpoint without code in it")]
Channels = Annotated[int | None, typer.Option(min=1, help="image channels, where the file does not tell")]
Grid = Annotated[str | None, typer.Option(help="tokens per axis, such as 14,14, where the file does not tell")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="backbone.NAME=VALUE")]


@app.command("inspect")
def inspect(file: File, channels: Channels = None, grid: Grid = None, as_json: output.JsonOption = False) -> None:
    """Say which layout a file has and what encoder is in it."""
    found = _read(file, channels, grid)
    state = found.weights.state
    document = {
        "file": str(file),
        "layout": found.layout,
        "tensors": len(state),
        "parameters": sum(value.numel() for value in state.values()),
        "channels": found.weights.channels,
        "patch": found.weights.patch,
        "grid": found.weights.grid,
        "fixed_positions": found.weights.fixed_positions,
        "dim": state["norm.weight"].numel() if "norm.weight" in state else None,
        "depth": len({name.split(".")[1] for name in state if name.startswith("blocks.")}) or None,
    }
    output.show(document, as_json, lambda: output.make_table(str(file), ["what", "found"], list(document.items())))


@app.command("import")
def import_weights(
    file: File,
    out: Annotated[Path, typer.Argument(help="safetensors file to write")],
    backbone: Annotated[str, typer.Option(help="backbone plugin that the weights are for")] = "vit",
    roi: Annotated[str | None, typer.Option(help="image size per axis, such as 96,96,96 [default: the file's]")] = None,
    image_channels: Annotated[
        int | None, typer.Option(min=1, help="channels of your images [default: the file's]")
    ] = None,
    settings: Settings = None,
    waive: Annotated[bool, typer.Option("--waive", help="take it though less than 95 % of the encoder fits")] = False,
    channels: Channels = None,
    grid: Grid = None,
    as_json: output.JsonOption = False,
) -> None:
    """Fit weights of any layout to an encoder, and write them as `--pretrain weights --file OUT` reads them."""
    from mae_bench.cli.run import parse_settings
    from mae_bench.engine.transfer import load_encoder
    from mae_bench.engine.weights import save_weights
    from mae_bench.registry import registry
    from mae_bench.resolve import resolve_plugin

    found = _read(file, channels, grid)
    sizes = _sizes(roi, "--roi") or tuple(a * b for a, b in zip(found.weights.grid, found.weights.patch, strict=True))
    if not sizes:
        raise UsageError("--roi: say the image size the encoder is for, such as --roi 224,224: the file does not")
    plugin, options = resolve_plugin("backbone", backbone, parse_settings(settings or []), registry())
    encoder = plugin.build(options, image_channels or found.weights.channels, sizes)
    report = load_encoder(encoder, found.weights, f"{file.name} ({found.layout})", waive=waive)
    save_weights(encoder, out)
    document = {"file": str(out), "layout": found.layout, "transfer": report.model_dump(mode="json")}
    rows = [("file", out), *report.model_dump().items()]
    output.show(document, as_json, lambda: output.make_table("transfer", ["what", "found"], rows))


@app.command("export")
def export_weights(
    source: Annotated[str, typer.Argument(help="weights file, or the key of an encoder or a record in the store")],
    out: Annotated[Path, typer.Argument(help="file to write: .safetensors or .pth")],
    to: Annotated[str, typer.Option(help="layout: timm (2-D), or monai (2-D and 3-D, the encoder of UNETR)")],
    channels: Channels = None,
    grid: Grid = None,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Write an encoder under the names of another library."""
    from mae_bench.engine.export import FORMATS, export

    if to not in FORMATS:
        raise UsageError(f"--to {to}: there are {', '.join(FORMATS)}")
    if out.suffix not in (".safetensors", ".pth"):
        raise UsageError(f"{out}: its name must end in .safetensors or .pth")
    found = _read(_encoder_file(source, output.open_store(store)), channels, grid)
    document = {"file": str(out), "layout": to, "tensors": export(found.weights, to, out)}
    output.show(document, as_json, lambda: output.make_table("export", ["what", "found"], list(document.items())))


def _read(file: Path, channels: int | None, grid: str | None) -> Any:
    from mae_bench.engine.layouts import Stated, read_weights

    return read_weights(file, Stated(channels, _sizes(grid, "--grid")))


def _sizes(text: str | None, flag: str) -> tuple[int, ...]:
    """`96,96,96` as whole numbers."""
    try:
        sizes = tuple(int(part) for part in (text or "").split(",") if text)
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise UsageError(f"{flag} {text}: expected whole numbers, such as 96,96,96")
    return sizes


def _encoder_file(source: str, store: Any) -> Path:
    """A file as it is, or the encoder of a key: a record's own fine-tuned one has no file of its own."""
    if Path(source).is_file():
        return Path(source)
    record = store.read_record(source)
    key = source if record is None else record.spec.pretrain_key()
    path: Path = store.root / "encoders" / key / "encoder.safetensors"
    if not path.is_file():
        raise UsageError(f"{source}: neither a file nor the key of an encoder or a record with one in {store.root}")
    return path
