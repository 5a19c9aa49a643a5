"""`mae-bench data`: find, check and prepare data sets."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mae_bench.cli import output
from mae_bench.errors import InputError, UsageError

app = typer.Typer(no_args_is_help=True, help="Find, check and prepare data sets.")

Name = Annotated[str, typer.Argument(help="data set plugin")]
Folder = Annotated[Path | None, typer.Option("--data", help="folder of the data set")]
Demo = Annotated[bool, typer.Option("--demo", help="the data set's stand-in")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="dataset.NAME=VALUE")]
ProtocolName = Annotated[str | None, typer.Option("--protocol", help="split and scoring rules")]


def _dataset(name: str, settings: list[str] | None) -> tuple[Any, Any]:
    from mae_bench.cli.run import parse_settings
    from mae_bench.registry import registry
    from mae_bench.resolve import resolve_plugin

    return resolve_plugin("dataset", name, parse_settings(settings or []), registry())


@app.command("list")
def list_datasets(as_json: output.JsonOption = False) -> None:
    """List the data sets with licence and where to get them."""
    from mae_bench.registry import registry

    found = registry()
    documents = [
        {"name": name, "summary": plugin.summary, "builtin": plugin.builtin} | plugin.card.model_dump()
        for listed in found.all()
        if listed.kind == "dataset"
        for name, plugin in [(listed.plugin.name, listed.plugin)]
    ]
    rows = [(d["name"], d["summary"], d["licence"], d["obtain"]) for d in documents]
    output.show(documents, as_json, lambda: output.make_table("data sets", ["name", "what", "licence", "obtain"], rows))


@app.command("status")
def status(
    name: Name,
    data: Folder = None,
    demo: Demo = False,
    settings: Settings = None,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Say what the data set is, how to get it, and with --data what is found there under each protocol."""
    from mae_bench.data.source import choose_protocol, locate

    dataset, options = _dataset(name, settings)
    document: dict[str, Any] = {"name": name, "card": dataset.card.model_dump()}
    if data is not None or demo or dataset.builtin:
        root, kind = locate(dataset, options, output.open_store(store), data, demo, lambda done, total: None)
        layout = dataset.scan(options, root)
        document |= {
            "folder": str(root),
            "kind": kind,
            "cases": len(layout.cases),
            "channels": layout.channels,
            "labels": layout.labels,
            "problems": list(layout.problems.values()),
            "protocols": {},
        }
        for protocol in dataset.protocols(options, layout):
            try:
                rules = choose_protocol(dataset, options, layout, protocol)
                split = dataset.split(layout.cases, rules)
            except (InputError, UsageError) as error:
                # One protocol may ask for what another does not: the status is of all of them.
                document["protocols"][protocol] = {"refused": str(error)}
                continue
            document["protocols"][protocol] = {"summary": rules.summary} | {
                side: len(cases) for side, cases in split.model_dump().items()
            }
    rows = [
        *document["card"].items(),
        *((key, value) for key, value in document.items() if key not in ("name", "card")),
    ]
    output.show(document, as_json, lambda: output.make_table(name, ["what", "found"], rows))


@app.command("prepare")
def prepare(
    name: Name,
    data: Folder = None,
    demo: Demo = False,
    protocol: ProtocolName = None,
    settings: Settings = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave unusable cases out")] = False,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Check every case and prepare it, once; `run` does the same when it must."""
    from mae_bench.data.source import open_data

    dataset, options = _dataset(name, settings)
    with output.reporting() as reporter:
        opened = open_data(
            dataset,
            options,
            output.open_store(store),
            data=data,
            demo=demo,
            protocol=protocol,
            skip_bad=skip_bad,
            stage=output.stage_progress(reporter),
        )
    document = {
        "folder": str(opened.prepared.folder),
        "fingerprint": opened.prepared.fingerprint,
        "cases": len(opened.prepared.facts),
        "skipped": opened.prepared.problems,
        "split": {side: len(cases) for side, cases in opened.split.model_dump().items()},
    }
    output.show(document, as_json, lambda: output.make_table(name, ["what", "found"], list(document.items())))


@app.command("verify")
def verify(
    name: Name,
    data: Folder = None,
    demo: Demo = False,
    protocol: ProtocolName = None,
    settings: Settings = None,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Read and check every case without preparing anything; exit 3 with a line for each unusable one."""
    from mae_bench.data.prepare import check_all
    from mae_bench.data.source import choose_protocol, locate

    dataset, options = _dataset(name, settings)
    with output.reporting() as reporter:
        stage = output.stage_progress(reporter)
        root, _ = locate(dataset, options, output.open_store(store), data, demo, stage("write stand-in"))
        layout = dataset.scan(options, root)
        task = dataset.task(options, layout, choose_protocol(dataset, options, layout, protocol))
        problems = check_all(dataset, root, layout, task, progress=stage("verify"))
    if problems:
        raise InputError(
            f"{len(problems)} cases in {root} cannot be used", problems=[problems[case] for case in sorted(problems)]
        )
    document = {"folder": str(root), "cases": len(layout.cases), "problems": []}
    output.show(document, as_json, lambda: output.make_table(name, ["what", "found"], list(document.items())))


@app.command("demo")
def demo_files(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="folder to write to; must not exist")],
    settings: Settings = None,
    as_json: output.JsonOption = False,
) -> None:
    """Write the data set's stand-in, in the official layout."""
    from mae_bench.store import writing_folder

    dataset, options = _dataset(name, settings)
    if folder.exists():
        raise InputError(f"{folder}: exists already", "name a folder that does not")
    with output.reporting() as reporter, writing_folder(folder) as temporary:
        dataset.write_demo(options, temporary, output.stage_progress(reporter)("write stand-in"))
    document = {"folder": str(folder), "files": sum(path.is_file() for path in folder.rglob("*"))}
    output.show(document, as_json, lambda: output.make_table(name, ["what", "found"], list(document.items())))
