"""`mae-bench plugins`: what is installed, whether it keeps the contract, and a start for a new one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mae_bench.cli import output
from mae_bench.errors import InputError, UsageError

if TYPE_CHECKING:
    from mae_bench.registry import Listed

app = typer.Typer(no_args_is_help=True, help="List, explain, check and start plugins.")

NameArgument = Annotated[str, typer.Argument(help="name of a plugin")]
KindOption = Annotated[str | None, typer.Option(help="dataset, backbone, pretrain or head, if the name is not enough")]


@app.command("list")
def list_plugins(as_json: output.JsonOption = False) -> None:
    """List every plugin, and those that could not be loaded with the reason."""
    from mae_bench.registry import HOOKS, registry

    found = registry()
    plugins = [
        {
            "kind": listed.kind,
            "name": listed.plugin.name,
            "summary": listed.plugin.summary,
            "dist": listed.dist,
            "version": listed.version,
        }
        for listed in found.all(HOOKS)
    ]
    rows = [(p["kind"], p["name"], p["summary"], f"{p['dist']} {p['version']}") for p in plugins]
    rows += [("unavailable", name, reason, "") for name, reason in found.unavailable.items()]
    output.show(
        {"plugins": plugins, "unavailable": found.unavailable},
        as_json,
        lambda: output.make_table("plugins", ["kind", "name", "what it is", "from"], rows, once=["from"]),
    )


@app.command("info")
def info(
    name: NameArgument,
    kind: KindOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Explain one plugin: its options with bounds and defaults, what it needs and provides, its licence."""
    from mae_bench.recipe import recipe_names
    from mae_bench.registry import EXECUTOR

    listed = _find(name, kind)
    plugin = listed.plugin
    options = _options(plugin)
    document: dict[str, Any] = {
        "kind": listed.kind,
        "name": plugin.name,
        "summary": plugin.summary,
        "dist": listed.dist,
        "version": listed.version,
        "options": options,
    }
    if listed.kind != EXECUTOR:
        document |= {word: _words(plugin, word) for word in ("needs", "provides")}
    if listed.kind == "dataset":
        document |= {"card": plugin.card.model_dump(), "recipes": recipe_names(plugin.recipes)}
    rows: list[tuple[Any, ...]] = [
        (f"--{o['name'].replace('_', '-')}", o["type"], o["default"], o["description"]) for o in options
    ]
    rows += [
        (word, "", "", ", ".join(document[word]) or "nothing") for word in ("needs", "provides") if word in document
    ]
    for field, text in document.get("card", {}).items():
        rows.append((field, "", "", text))
    if "recipes" in document:
        rows.append(("recipes", "", "", ", ".join(document["recipes"])))
    output.show(
        document,
        as_json,
        lambda: output.make_table(f"{name}: {plugin.summary}", ["option", "type", "default", "what it is"], rows),
    )


@app.command("check")
def check(
    name: NameArgument,
    kind: KindOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KIND.OPTION=VALUE", help="an option to check it with, such as backbone.depth=2"),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="of a data set: real files, instead of the stand-in")] = None,
    as_json: output.JsonOption = False,
) -> None:
    """Run the contract that every plugin keeps; exit code 3 when a check fails."""
    import tempfile
    from dataclasses import asdict

    from mae_bench.cli.run import parse_settings
    from mae_bench.registry import EXECUTOR, KINDS, registry
    from mae_bench.resolve import settings_of
    from mae_bench.testing import Subject, run_checks

    listed = _find(name, kind)
    if listed.kind == EXECUTOR:
        raise UsageError(f"{name} is an executor; the contract is of {', '.join(KINDS)}")
    given = settings_of(listed, parse_settings(settings or []))
    if data is not None and listed.kind != "dataset":
        raise UsageError(f"--data is for data sets; {name} is a {listed.kind}")
    with output.reporting() as reporter, tempfile.TemporaryDirectory() as folder:
        subject = Subject(listed, registry(), Path(folder), given, data)
        results = run_checks(subject, output.stage_progress(reporter)("check"))
    failed = [result for result in results if result.ok is False]
    document = {
        "kind": listed.kind,
        "name": name,
        "dist": listed.dist,
        "version": listed.version,
        "ok": not failed,
        "checks": [asdict(result) for result in results],
    }
    words = {True: "ok", False: "FAILS", None: "-"}
    rows = [(each.check, words[each.ok], each.reason or each.law, f"{each.seconds:.1f}") for each in results]
    title = f"{listed.kind} {name}, {listed.dist} {listed.version}"
    output.show(document, as_json, lambda: output.make_table(title, ["check", "", "law, or why not", "s"], rows))
    if failed:
        if not as_json:
            print(f"mae-bench: {name} fails {len(failed)} of {len(results)} checks", file=sys.stderr)
        raise typer.Exit(InputError.exit_code)


@app.command("new")
def new(
    kind: Annotated[str, typer.Argument(help="dataset, backbone, pretraining or head")],
    name: Annotated[str, typer.Argument(help="its name: lower-case words joined by hyphens")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder that is not there yet")],
    as_json: output.JsonOption = False,
) -> None:
    """Write an installable distribution with a small working plugin and a passing test."""
    from mae_bench.registry import registry
    from mae_bench.scaffold import write

    written = write(kind, name, folder, registry())
    document = {"folder": str(folder), "files": [str(path) for path in written]}
    output.show(document, as_json, lambda: output.make_table(f"{kind} {name}", ["written"], [(p,) for p in written]))
    print(f"next: pip install -e {folder} && mae-bench plugins check {name}", file=sys.stderr)


def _find(name: str, kind: str | None) -> Listed:
    """The plugin of that name. Raises UsageError when there is none, or several and `kind` does not decide."""
    from mae_bench.registry import HOOKS, registry

    found = registry()
    if kind is not None and kind not in HOOKS:
        raise UsageError(f"--kind {kind}: there are {', '.join(HOOKS)}")
    kinds = [each for each in HOOKS if name in found.names(each) and kind in (None, each)]
    if not kinds:
        broken = "".join(f"\n  unavailable: {entry}: {why}" for entry, why in found.unavailable.items())
        raise UsageError(f"no plugin {name!r}; `mae-bench plugins list` shows what there is{broken}")
    if len(kinds) > 1:
        raise UsageError(f"{name!r} is the name of several plugins; add --kind {' or --kind '.join(kinds)}")
    return found.get(kinds[0], name)


def _words(plugin: Any, word: str) -> list[str]:
    """What the plugin needs or provides by default; nothing can be said when an option has no default."""
    if any(field.is_required() for field in plugin.Options.model_fields.values()):
        return []
    return sorted(getattr(plugin, word)(plugin.Options()))


def _options(plugin: Any) -> list[dict[str, Any]]:
    schema = plugin.Options.model_json_schema()
    found = []
    for name, field in schema.get("properties", {}).items():
        kinds = [_type(each) for each in field.get("anyOf", [field])]
        found.append(
            {
                "name": name,
                "type": " or ".join(kinds),
                "default": field.get("default"),
                "description": field.get("description", ""),
            }
        )
    return found


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]:g}" for name, sign in words.items() if name in field]
    return " ".join([str(field.get("type", "any")), *bounds])
