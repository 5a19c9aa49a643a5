"""`mae-bench plugins`: what is installed."""

from typing import Annotated, Any

import typer

from mae_bench.cli import output
from mae_bench.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="List and explain plugins.")


@app.command("list")
def list_plugins(as_json: output.JsonOption = False) -> None:
    """List every plugin, and those that could not be loaded with the reason."""
    from mae_bench.registry import registry

    found = registry()
    plugins = [
        {
            "kind": listed.kind,
            "name": listed.plugin.name,
            "summary": listed.plugin.summary,
            "dist": listed.dist,
            "version": listed.version,
        }
        for listed in found.all()
    ]
    rows = [(p["kind"], p["name"], p["summary"], f"{p['dist']} {p['version']}") for p in plugins]
    rows += [("unavailable", name, reason, "") for name, reason in found.unavailable.items()]
    output.show(
        {"plugins": plugins, "unavailable": found.unavailable},
        as_json,
        lambda: output.make_table("plugins", ["kind", "name", "what it is", "from"], rows),
    )


@app.command("info")
def info(
    name: Annotated[str, typer.Argument(help="name of a plugin")],
    kind: Annotated[
        str | None, typer.Option(help="dataset, backbone, pretrain or head, if the name is not enough")
    ] = None,
    as_json: output.JsonOption = False,
) -> None:
    """Explain one plugin: its options with bounds and defaults, what it needs and provides, its licence."""
    from mae_bench.recipe import recipe_names
    from mae_bench.registry import KINDS, registry

    found = registry()
    kinds = [each for each in KINDS if name in found.names(each) and kind in (None, each)]
    if not kinds:
        raise UsageError(f"no plugin {name!r}; `mae-bench plugins list` shows what there is")
    if len(kinds) > 1:
        raise UsageError(f"{name!r} is the name of several plugins; add --kind {' or --kind '.join(kinds)}")
    listed = found.get(kinds[0], name)
    plugin = listed.plugin
    options = _options(plugin)
    document: dict[str, Any] = {
        "kind": listed.kind,
        "name": plugin.name,
        "summary": plugin.summary,
        "dist": listed.dist,
        "version": listed.version,
        "options": options,
        "needs": sorted(plugin.needs(plugin.Options())),
        "provides": sorted(plugin.provides(plugin.Options())),
    }
    if listed.kind == "dataset":
        document |= {"card": plugin.card.model_dump(), "recipes": recipe_names(plugin.recipes)}
    rows: list[tuple[Any, ...]] = [
        (f"--{o['name'].replace('_', '-')}", o["type"], o["default"], o["description"]) for o in options
    ]
    rows += [(word, "", "", ", ".join(document[word]) or "nothing") for word in ("needs", "provides")]
    for field, text in document.get("card", {}).items():
        rows.append((field, "", "", text))
    if "recipes" in document:
        rows.append(("recipes", "", "", ", ".join(document["recipes"])))
    output.show(
        document,
        as_json,
        lambda: output.make_table(f"{name}: {plugin.summary}", ["option", "type", "default", "what it is"], rows),
    )


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
