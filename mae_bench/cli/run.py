"""`mae-bench run`: one cell of the grid."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from mae_bench.cli import output
from mae_bench.errors import UsageError

EPILOG = (
    "Options of the chosen plugins are flags too, such as `--ratio 0.75`; `mae-bench plugins info mae` lists them. "
    "So are those of a federation: `--sites 4 --rounds 10 --local-steps 20 --strategy fedavg --partition dirichlet`."
)

TRACKERS = ("tensorboard", "mlflow", "wandb")
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="pretrain.lr=1e-4, finetune.steps=500, recipe.roi=[64,64,64], backbone.size=small",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", epilog=EPILOG, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)


def run(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help="data set plugin")],
    pretrain: Annotated[str, typer.Option(help="pre-training plugin")],
    backbone: Annotated[str, typer.Option(help="backbone plugin")] = "vit",
    head: Annotated[str | None, typer.Option(help="head plugin [default: what fits the task]")] = None,
    data: Annotated[Path | None, typer.Option(help="folder of the data set")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="use the data set's stand-in, which needs no download")] = False,
    protocol: Annotated[
        str | None, typer.Option(help="split and scoring rules [default: the data set's first]")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="hyper-parameters and budget [default: paper; demo with --demo]")
    ] = None,
    labels: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of training labels that may be used")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of fine-tuning and of the labelled subset")] = 0,
    pretrain_seed: Annotated[int, typer.Option(min=0, help="seed of pre-training")] = 0,
    settings: SettingsOption = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave unusable cases out; the record says so")] = False,
    tracker: Annotated[list[str] | None, typer.Option(help="tensorboard, mlflow or wandb; off by default")] = None,
    compile_model: Annotated[bool, typer.Option("--compile", help="torch.compile the training step")] = False,
    checkpoint_minutes: Annotated[float, typer.Option(min=0.0, help="time between checkpoints")] = 5.0,
    site_workers: Annotated[
        int, typer.Option(min=0, help="processes for the sites of a federation [default: this one, in turn]")
    ] = 0,
    site_engine: Annotated[str, typer.Option(help="of site workers: workers (processes) or ray")] = "workers",
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Pre-train, fine-tune, score: leaves one record."""
    from mae_bench.registry import registry
    from mae_bench.resolve import Request, resolve

    if not labels > 0:
        raise UsageError("--labels must be greater than 0")
    _check_trackers(tracker or [])
    if site_engine not in ("workers", "ray"):
        raise UsageError(f"--site-engine {site_engine}: there are workers and ray")
    plugins = registry()
    request = Request(
        dataset, pretrain, backbone, head, recipe, demo, parse_flags(context.args), parse_settings(settings or [])
    )
    chosen = resolve(request, plugins)
    place = output.open_store(store)
    with output.reporting() as reporter:
        from mae_bench.data.source import open_data

        opened = open_data(
            chosen.plugin("dataset"),
            chosen.options["dataset"],
            place,
            data=data,
            demo=demo,
            protocol=protocol,
            skip_bad=skip_bad,
            stage=output.stage_progress(reporter),
        )
        from mae_bench.engine.device import make_accelerator
        from mae_bench.engine.loop import Setting
        from mae_bench.engine.progress import Silent
        from mae_bench.run import make_cell
        from mae_bench.run import run as run_cell

        cell = make_cell(chosen, opened, labels=labels, seed=seed, pretrain_seed=pretrain_seed)
        key = cell.spec.key()
        accelerator = make_accelerator(tracker or (), place.root / "trackers" / key)
        if tracker:
            accelerator.init_trackers("mae-bench", {"key": key})
        quiet = not accelerator.is_main_process
        setting = Setting(
            accelerator,
            Silent() if quiet else reporter,
            checkpoint_minutes=checkpoint_minutes,
            compile=compile_model,
            site_workers=site_workers,
            site_engine="ray" if site_engine == "ray" else "workers",
        )
        try:
            record = run_cell(cell, place, setting, plugins)
        finally:
            accelerator.end_training()
    if not quiet:
        from mae_bench.cli.show import record_table

        output.show(record.to_json(), as_json, lambda: record_table(record, place))


def _check_trackers(names: list[str]) -> None:
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"--tracker {name}: there are {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise UsageError(f"--tracker {name}: not installed; pip install 'mae-bench[trackers]'")


def parse_flags(arguments: list[str]) -> dict[str, str]:
    """`--name value`, `--name=value` and bare `--name` (true), from what no option of the command claimed."""
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UsageError(f"unexpected argument {word!r}")
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        if name in flags:
            raise UsageError(f"--{name} is given twice")
        flags[name] = value
    return flags


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`--set place.name=value` pairs."""
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or "." not in name:
            raise UsageError(f"--set {setting}: expected place.name=value, such as pretrain.lr=1e-4")
        found[name] = value
    return found
