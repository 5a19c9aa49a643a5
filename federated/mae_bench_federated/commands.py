"""`mae-bench federated`: what a server and its hospitals need before, and a check of it. Light until a command runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mae_bench.cli import output
from mae_bench.errors import InputError, UsageError
from mae_bench_federated.hooks import require_flower

app = typer.Typer(no_args_is_help=True, help="Pre-train across hospitals that may not share images.")

WORDS = {True: "right", False: "WRONG", None: "-"}

HospitalOption = Annotated[list[str], typer.Option("--hospital", help="name of a hospital's node; once for each")]
HostOption = Annotated[str, typer.Option("--host", help="name under which hospitals reach the server")]


@app.command("certs")
def certs(
    folder: Annotated[Path, typer.Argument(help="where; must not hold any of them yet")],
    host: HostOption,
    hospital: HospitalOption,
    as_json: output.JsonOption = False,
) -> None:
    """Write a certificate authority, the server's certificate, and a key for each hospital."""
    require_flower()
    from mae_bench_federated.deploy.certs import write_certificates

    # The proxy and the administrator reach the server by its loopback.
    written = write_certificates(folder, [host, "localhost", "127.0.0.1"], _names(hospital))
    rows = [(path.name, _owner(path, hospital)) for path in written]
    document = [{"file": str(path), "goes_to": _owner(path, hospital)} for path in written]
    output.show(document, as_json, lambda: output.make_table(str(folder), ["file", "goes to"], rows))


@app.command("app", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def write_app(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="where")],
    dataset: Annotated[str, typer.Option(help="data set plugin")],
    pretrain: Annotated[str, typer.Option(help="pre-training plugin")],
    host: HostOption,
    hospital: HospitalOption,
    certificates: Annotated[Path, typer.Option("--certs", help="folder of the certificates, on the server")],
    backbone: Annotated[str, typer.Option(help="backbone plugin")] = "vit",
    data: Annotated[Path | None, typer.Option(help="any hospital's images: their channels are told, no more")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="the stand-in, for trials")] = False,
    protocol: Annotated[str | None, typer.Option(help="rules of preparation")] = None,
    recipe: Annotated[str | None, typer.Option(help="hyper-parameters and budget")] = None,
    pretrain_seed: Annotated[int, typer.Option(min=0, help="seed of pre-training")] = 0,
    port: Annotated[int, typer.Option(help="port of the proxy, for hospitals")] = 443,
    place: Annotated[Path, typer.Option("--out", help="folder of the results, on the server")] = Path("/srv/mae-bench"),
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="as for `run`")] = None,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Write a study: the app and its run file, connection, units of systemd, the proxy. Takes the flags of `run`."""
    require_flower()
    from mae_bench.cli.run import parse_flags, parse_settings
    from mae_bench.data.source import open_data
    from mae_bench.registry import registry
    from mae_bench.resolve import Request, resolve
    from mae_bench.run import make_cell
    from mae_bench.store import write_json
    from mae_bench_federated.deploy.study_files import write_study
    from mae_bench_federated.study import make_study

    names = _names(hospital)
    flags = {"sites": str(len(names))} | parse_flags(context.args)
    if flags["sites"] != str(len(names)):
        raise UsageError(f"--sites {flags['sites']}: there are {len(names)} --hospital")
    asked = Request(dataset, pretrain, backbone, None, recipe, demo, flags, parse_settings(settings or []))
    chosen = resolve(asked, registry())
    with output.reporting() as reporter:
        opened = open_data(
            chosen.plugin("dataset"), chosen.options["dataset"], output.open_store(store), data=data, demo=demo,
            protocol=protocol, skip_bad=True, stage=output.stage_progress(reporter),
        )  # fmt: skip
    study = make_study(make_cell(chosen, opened, labels=1.0, seed=0, pretrain_seed=pretrain_seed).spec, opened.task)
    write_json(folder / "study.json", study.model_dump(mode="json"))
    written = write_study(folder, study, names, host=host, port=port, certificates=certificates, out=place)
    document: dict[str, Any] = {"recipe": study.key(), "files": [str(folder / "study.json"), *map(str, written)]}
    rows = [("recipe hash", study.key()), *(("file", path) for path in document["files"])]
    output.show(document, as_json, lambda: output.make_table("study", ["what", "is"], rows))


@app.command("check")
def check(
    study: Annotated[Path, typer.Argument(help="study.json, as `app` wrote it")],
    recipe: Annotated[str, typer.Option(help="the recipe hash that was agreed on, by telephone")],
    data: Annotated[Path | None, typer.Option(help="folder of this hospital's images")] = None,
    server: Annotated[str | None, typer.Option(help="HOST:PORT of the server")] = None,
    authority: Annotated[Path | None, typer.Option("--ca", help="ca.crt")] = None,
    key: Annotated[Path | None, typer.Option(help="this hospital's key")] = None,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Say whether this hospital's data, versions, recipe and connection are right, before the first round."""
    require_flower()
    from mae_bench_federated.deploy.check import check_all

    found = check_all(study, recipe, data, server, authority, key, output.open_store(store))
    rows = [(each.what, WORDS[each.right], each.told) for each in found]
    document = [each._asdict() for each in found]
    if wrong := [f"{each.what}: {each.told}" for each in found if each.right is False]:
        raise InputError(f"{len(wrong)} of {len(found)} checks failed", problems=wrong)
    output.show(document, as_json, lambda: output.make_table("check", ["what", "is", "told"], rows))


def _names(hospitals: list[str]) -> list[str]:
    """Names that can be those of files and nodes. Raises UsageError."""
    for name in hospitals:
        if not name.replace("-", "").replace("_", "").isalnum() or name in ("ca", "server"):
            raise UsageError(f"--hospital {name!r}: letters, digits, - and _, and neither ca nor server")
    if len(set(hospitals)) < len(hospitals):
        raise UsageError("--hospital: a name is given twice")
    return hospitals


def _owner(path: Path, hospitals: list[str]) -> str:
    if path.name == "ca.crt":
        return "everyone"
    if path.name == "ca.key":
        return "nobody: keep it offline"
    if path.stem in hospitals:
        return path.stem if path.suffix == ".key" else "the server"
    return "the server"
