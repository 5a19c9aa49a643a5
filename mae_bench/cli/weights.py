"""`mae-bench weights`: what is in a weights file, and from one layout to another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mae_bench.cli import output
from mae_bench.errors import InputError, UsageError

if TYPE_CHECKING:
    from mae_bench.engine.layouts import Found

app = typer.Typer(no_args_is_help=True, help="Inspect, import and export encoder weights.")

File = Annotated[Path, typer.Argument(help="weights file: safetensors, or a PyTorch checkpoint without code in it")]
FileChannels = Annotated[int | None, typer.Option(min=1, help="image channels, where the file does not tell")]
FilePatch = Annotated[str | None, typer.Option(help="voxels per token and axis, where the file does not tell: 16,16")]
FileGrid = Annotated[str | None, typer.Option(help="tokens per axis, where the file does not tell: 14,14")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="backbone.NAME=VALUE")]


@app.command("inspect")
def inspect(
    file: File,
    file_channels: FileChannels = None,
    file_patch: FilePatch = None,
    file_grid: FileGrid = None,
    as_json: output.JsonOption = False,
) -> None:
    """Say which layout a file has and what encoder is in it."""
    found = _read(file, file_channels, file_patch, file_grid)
    weights, state = found.weights, found.weights.state
    document = {
        "file": str(file),
        "layout": found.layout,
        "tensors": len(state),
        "parameters": sum(value.numel() for value in state.values()),
        "channels": weights.channels,
        "patch": weights.patch,
        "grid": weights.grid,
        "fixed_positions": weights.fixed_positions,
        "width": state["norm.weight"].numel() if "norm.weight" in state else None,
        "depth": len({name.split(".")[1] for name in state if name.startswith("blocks.")}) or None,
    }
    output.show(document, as_json, lambda: output.make_table(str(file), ["what", "found"], list(document.items())))


@app.command("import")
def import_weights(
    file: File,
    out: Annotated[Path, typer.Argument(help="safetensors file to write")],
    backbone: Annotated[str | None, typer.Option(help="backbone plugin to fit them to (none: as they are)")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="channels of your images (if not the file's)")] = None,
    roi: Annotated[str | None, typer.Option(help="size of your images, such as 96,96,96 (if not the file's)")] = None,
    settings: Settings = None,
    waive: Annotated[bool, typer.Option("--waive", help="take it though less than 95 % of the encoder fits")] = False,
    file_channels: FileChannels = None,
    file_patch: FilePatch = None,
    file_grid: FileGrid = None,
    as_json: output.JsonOption = False,
) -> None:
    """Write weights of any layout as `--pretrain weights --file OUT` reads them.

    With --backbone, --channels, --roi or --set they are fitted to such an encoder; else only the layout changes.
    """
    from mae_bench.cli.run import parse_settings
    from mae_bench.data.manifest import carry_manifest
    from mae_bench.engine.layouts.vit import with_positions
    from mae_bench.engine.weights import save_weights, write_weights
    from mae_bench.record import Transfer

    found = _read(file, file_channels, file_patch, file_grid)
    source = f"{file.name} ({found.layout})"
    if backbone or channels or roi or settings:
        sizes, chosen = _sizes(roi, "--roi"), parse_settings(settings or [])
        encoder, report = _fitted(found, source, backbone or "vit", channels, sizes, chosen, waive)
        save_weights(encoder, out)
    else:
        write_weights(with_positions(found.weights), out)
        report = Transfer(source=source, loaded=1.0, random=0.0)
    carry_manifest(file, out)
    document = {"file": str(out), "layout": found.layout, "transfer": report.model_dump(mode="json")}
    output.show(document, as_json, lambda: _transfer_table(out, report))


@app.command("export")
def export_weights(
    source: Annotated[str, typer.Argument(help="weights file, or the key of an encoder or a record in the store")],
    out: Annotated[Path, typer.Argument(help="file to write: .safetensors or .pth")],
    to: Annotated[
        Literal["timm", "monai", "ours"],
        typer.Option(help="timm: 2-D VisionTransformer; monai: the encoder of UNETR; ours"),
    ],
    projection: Annotated[
        Literal["conv", "perceptron"] | None, typer.Option(help="MONAI's proj_type (if not conv)")
    ] = None,
    file_channels: FileChannels = None,
    file_patch: FilePatch = None,
    file_grid: FileGrid = None,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Write an encoder under the names of another library."""
    from mae_bench.data.manifest import carry_manifest
    from mae_bench.engine.checkpoint import save as save_checkpoint
    from mae_bench.engine.layouts.monai import to_monai
    from mae_bench.engine.layouts.vit import to_timm, with_positions
    from mae_bench.engine.weights import save_state, write_weights

    if out.suffix not in ((".safetensors",) if to == "ours" else (".safetensors", ".pth")):
        raise UsageError(f"{out}: its name must end in .safetensors" + (" or .pth" if to != "ours" else ""))
    if projection is not None and to != "monai":
        raise UsageError("--projection is MONAI's: give it with --to monai")
    file = _encoder_file(source, output.open_store(store))
    weights = _read(file, file_channels, file_patch, file_grid).weights
    if to == "ours":
        state = with_positions(weights).state
        write_weights(with_positions(weights), out)
    else:
        state = to_timm(weights) if to == "timm" else to_monai(weights, perceptron=projection == "perceptron")
        (save_state if out.suffix == ".safetensors" else save_checkpoint)(out, state)
    carry_manifest(file, out)
    size = tuple(a * b for a, b in zip(weights.grid, weights.patch, strict=True))
    document = {"file": str(out), "layout": to, "tensors": len(state), "channels": weights.channels, "roi": size}
    output.show(document, as_json, lambda: output.make_table("export", ["what", "found"], list(document.items())))


def _fitted(
    found: "Found",
    source: str,
    backbone: str,
    channels: int | None,
    roi: tuple[int, ...],
    settings: dict[str, Any],
    waive: bool,
) -> tuple[Any, Any]:
    """An encoder with the weights in it, and the report. What is not said is as in the file."""
    from mae_bench.engine.transfer import load_encoder
    from mae_bench.registry import registry
    from mae_bench.resolve import resolve_plugin

    weights, plugins = found.weights, registry()
    roi = roi or tuple(a * b for a, b in zip(weights.grid, weights.patch, strict=True))
    if not roi:
        raise UsageError("--roi: say the image size the encoder is for, such as --roi 224,224: the file does not")
    tokens = "patch" in plugins.get("backbone", backbone).plugin.Options.model_fields
    if tokens and len(weights.patch) == len(roi):
        settings = {"backbone.patch": str(list(weights.patch)), **settings}
    plugin, options = resolve_plugin("backbone", backbone, settings, plugins)
    plugin.check(options, roi)
    encoder = plugin.build(options, channels or weights.channels, roi)
    return encoder, load_encoder(encoder, weights, source, waive=waive)


def _transfer_table(out: Path, report: Any) -> Any:
    shares = [(name, f"{getattr(report, name):.1%}") for name in ("loaded", "resized", "inflated", "random")]
    rows = [("from", report.source), *shares, ("details", "\n".join(report.details) or "-")]
    return output.make_table(str(out), ["what", "share of the encoder"], rows)


def _read(file: Path, channels: int | None, patch: str | None, grid: str | None) -> "Found":
    from mae_bench.engine.layouts import read_weights
    from mae_bench.engine.layouts.names import Stated

    return read_weights(file, Stated(channels, _sizes(patch, "--file-patch"), _sizes(grid, "--file-grid")))


def _sizes(text: str | None, flag: str) -> tuple[int, ...]:
    """`96,96,96` as whole numbers."""
    try:
        sizes = () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise UsageError(f"{flag} {text}: expected whole numbers, such as 96,96,96")
    return sizes


def _encoder_file(source: str, store: Any) -> Path:
    """A file as it is, or the encoder of a key: a record's is the one its fine-tuning started from."""
    if Path(source).is_file():
        return Path(source)
    if Path(source).suffix:
        raise InputError(f"{source}: missing")
    record = store.read_record(source)
    key = source if record is None else record.spec.pretrain_key()
    path: Path = store.root / "encoders" / key / "encoder.safetensors"
    if not path.is_file():
        raise UsageError(
            f"{source}: neither a file nor the key of an encoder, or of a record with one, in {store.root}; "
            "`mae-bench results list` shows the keys"
        )
    return path
