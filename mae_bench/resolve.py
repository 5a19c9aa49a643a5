"""From what was asked (names, flags, --set) to a complete cell: plugins, options, recipe. Light: no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mae_bench.errors import UsageError
from mae_bench.interfaces import Source
from mae_bench.recipe import Recipe, load_recipe, merge_stage, validation_lines
from mae_bench.registry import KINDS, Listed, Registry
from mae_bench.spec import Federation
from mae_bench.values import Options

DEFAULT_HEADS = {"segmentation": "unetr", "classification": "classifier", "survival": "cox"}
AXES = frozenset({"2d", "3d"})
STAGES = ("pretrain", "finetune")
FEDERATION = (*Federation.model_fields, "local_steps")


@dataclass(frozen=True)
class Request:
    """What the user asked for. flags: unclaimed `--flag value` pairs. settings: `--set name=value` pairs."""

    dataset: str
    pretrain: str
    backbone: str = "vit"
    head: str | None = None
    recipe: str | None = None
    demo: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """The four plugins of a cell with their options, the recipe, and how sites share the training, if they do."""

    plugins: Mapping[str, Listed]
    options: Mapping[str, Options]
    recipe: Recipe
    federation: Federation | None = None

    def plugin(self, kind: str) -> Any:
        """The plugin object of `kind`."""
        return self.plugins[kind].plugin

    def source(self) -> Source | None:
        """The weights file that the encoder starts from, if any."""
        found: Source | None = self.plugin("pretrain").source(self.options["pretrain"])
        return found

    def recorded(self, kind: str) -> dict[str, Any]:
        """Options as a specification holds them: of a file its name, for where it lies decides nothing."""
        options = self.options[kind]
        files = {name: value.name for name, value in options if isinstance(value, Path)}
        return options.model_dump(mode="json") | files


def resolve(request: Request, registry: Registry) -> Chosen:
    """Fill in every default and check that the parts fit together.

    Raises:
        UsageError: an unknown name, an option nobody or more than one has, a value out of bounds, or parts that do
            not fit; says which and what there is instead.
    """
    plugins = {
        "dataset": registry.get("dataset", request.dataset),
        "backbone": registry.get("backbone", request.backbone),
        "pretrain": registry.get("pretrain", request.pretrain),
    }
    if request.head is not None:
        plugins["head"] = registry.get("head", request.head)
    dataset = plugins["dataset"].plugin
    name = request.recipe or ("demo" if request.demo or dataset.builtin else "paper")
    file = load_recipe(dataset.recipes, name)
    settings = {key: _value(text) for key, text in request.settings.items()}
    given: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    stages: dict[str, dict[str, Any]] = {stage: {} for stage in (*STAGES, "recipe", "federation")}
    # The data set's own options decide its task, and so the default head: they are settled first.
    _assign(settings, {"dataset": plugins["dataset"]}, given, stages, partial=True)
    _assign_flags(request.flags, {"dataset": plugins["dataset"]}, given, stages, partial=True)
    options = {"dataset": _options("dataset", plugins["dataset"].plugin, given["dataset"])}
    if "head" not in plugins:
        words = dataset.provides(options["dataset"])
        plugins["head"] = registry.get("head", next(head for word, head in DEFAULT_HEADS.items() if word in words))
    _assign(settings, plugins, given, stages)
    _assign_flags(request.flags, plugins, given, stages)
    for kind in ("backbone", "pretrain", "head"):
        plugin = plugins[kind].plugin
        options[kind] = _options(kind, plugin, {**file.for_plugin(kind, plugin.name), **given[kind]})
    _fit({kind: (listed.plugin, options[kind]) for kind, listed in plugins.items()})
    federation = _federation(stages)
    recipe = _recipe(file.for_method(request.pretrain, request.backbone), stages)
    _check_roi(recipe.roi, dataset, options["dataset"])
    plugins["backbone"].plugin.check(options["backbone"], recipe.roi)
    chosen = Chosen(plugins, options, recipe, federation)
    chosen.source()  # a file that is not there is missed now, not when the data are prepared
    return chosen


def _check_roi(roi: tuple[int, ...], dataset: Any, options: Options) -> None:
    axes = 3 if "3d" in dataset.provides(options) else 2
    if len(roi) != axes:
        raise UsageError(f"--set recipe.roi: {dataset.name} has {axes} axes, a crop of {roi} has {len(roi)}")


def resolve_plugin(kind: str, name: str, settings: Mapping[str, str], registry: Registry) -> tuple[Any, Options]:
    """One plugin and its options alone, for commands that need no whole cell."""
    listed = registry.get(kind, name)
    return listed.plugin, _options(kind, listed.plugin, settings_of(listed, settings))


def settings_of(listed: Listed, settings: Mapping[str, str]) -> dict[str, Any]:
    """What `--set kind.name=value` pairs say of one plugin; a UsageError if one of them is about anything else."""
    given: dict[str, dict[str, Any]] = {listed.kind: {}}
    _assign({key: _value(text) for key, text in settings.items()}, {listed.kind: listed}, given, {})
    return given[listed.kind]


def options_from_flags(kind: str, plugin: Any, flags: Mapping[str, str]) -> Options:
    """The options of one plugin from flags alone.

    Raises:
        UsageError: a flag that is no option of it, or a value out of bounds.
    """
    named = {flag.replace("-", "_"): _value(text) for flag, text in flags.items()}
    if unknown := [name for name in named if name not in _fields(plugin)]:
        there = ", ".join(f"--{name.replace('_', '-')}" for name in _fields(plugin)) or "none"
        raise UsageError(f"--{unknown[0].replace('_', '-')}: {kind} {plugin.name} has no such option. It has: {there}")
    return _options(kind, plugin, named)


def _value(text: str) -> Any:
    """`1e-4`, `[8, 8, 4]`, `true` as JSON would have them; anything else is text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _fields(plugin: Any) -> dict[str, Any]:
    fields: dict[str, Any] = plugin.Options.model_fields
    return fields


def _assign(
    settings: Mapping[str, Any],
    plugins: Mapping[str, Listed],
    given: dict[str, dict[str, Any]],
    stages: dict[str, dict[str, Any]],
    *,
    partial: bool = False,
) -> None:
    """Hand each `--set place.name=value` to its one owner. `partial`: pass over what is not of these plugins."""
    for key, value in settings.items():
        place, _, name = key.partition(".")
        name = name.replace("-", "_")
        owners = []
        if place in plugins and name in _fields(plugins[place].plugin):
            owners.append((given[place], f"option of the {place} {plugins[place].plugin.name}"))
        if place in stages and place in STAGES and name in Recipe.model_fields[place].annotation.model_fields:  # type: ignore[union-attr]
            owners.append((stages[place], f"setting of the recipe's {place} stage"))
        if place == "recipe" and place in stages and name == "roi":
            owners.append((stages["recipe"], "crop size"))
        if place == "federation" and place in stages and name in FEDERATION:
            owners.append((stages["federation"], "setting of the federation"))
        if len(owners) == 1:
            owners[0][0][name] = value
        elif owners:
            raise UsageError(f"--set {key}: ambiguous: " + " and ".join(owner[1] for owner in owners))
        elif not partial:
            raise UsageError(f"--set {key}: no such setting. There are: {', '.join(_all_settings(plugins, stages))}")


def _all_settings(plugins: Mapping[str, Listed], stages: Mapping[str, Any]) -> list[str]:
    names = [f"{kind}.{name}" for kind, listed in plugins.items() for name in _fields(listed.plugin)]
    for stage in set(STAGES) & set(stages):
        names += [f"{stage}.{name}" for name in Recipe.model_fields[stage].annotation.model_fields]  # type: ignore[union-attr]
    if stages:
        names += ["recipe.roi", *(f"federation.{name}" for name in FEDERATION)]
    return sorted(set(names))


def _assign_flags(
    flags: Mapping[str, str],
    plugins: Mapping[str, Listed],
    given: dict[str, dict[str, Any]],
    stages: dict[str, dict[str, Any]],
    *,
    partial: bool = False,
) -> None:
    """Hand each unclaimed flag to the one chosen plugin that has such an option, or to the federation."""
    for flag, text in flags.items():
        name = flag.replace("-", "_")
        owners = [kind for kind, listed in plugins.items() if name in _fields(listed.plugin)]
        # `--clip` and the like are the federation's only in its company.
        if name in FEDERATION and not partial and ("sites" in flags or stages["federation"]):
            owners.append("federation")
        if len(owners) == 1:
            (stages if owners[0] == "federation" else given)[owners[0]][name] = _value(text)
        elif owners:
            choices = " or ".join(f"--set {kind}.{name}={text}" for kind in owners)
            raise UsageError(f"--{flag}: {' and '.join(owners)} both have this option; say {choices}")
        elif not partial:
            there = sorted(
                f"--{option.replace('_', '-')} ({listed.plugin.name})"
                for listed in plugins.values()
                for option in _fields(listed.plugin)
            )
            hint = "; a federation needs --sites" if name in FEDERATION else ""
            raise UsageError(
                f"--{flag}: no chosen plugin has this option{hint}. They have: {', '.join(there) or 'none'}"
            )


def _options(kind: str, plugin: Any, values: Mapping[str, Any]) -> Options:
    try:
        made: Options = plugin.Options(**values)
    except ValidationError as error:
        raise UsageError(f"{kind} {plugin.name}: " + "; ".join(validation_lines(error))) from error
    return made


def _federation(stages: dict[str, dict[str, Any]]) -> Federation | None:
    """The federation that was asked for. `local_steps` is not a field of it: it sets the steps of its stages."""
    given = dict(stages["federation"])
    if not given:
        return None
    local = given.pop("local_steps", None)
    try:
        made = Federation(**given)
    except ValidationError as error:
        raise UsageError("--set federation: " + "; ".join(validation_lines(error))) from error
    if made.only is not None and made.only >= made.sites:
        raise UsageError(f"--only {made.only}: there are {made.sites} sites, counted from 0")
    if local is not None:
        for stage in STAGES if made.stages == "both" else (made.stages,):
            if "steps" in stages[stage] or "epochs" in stages[stage]:
                raise UsageError(f"--local-steps decides the steps of {stage}; leave --set {stage}.steps out")
            stages[stage]["steps"] = local * made.rounds
    return made


def _recipe(file: Recipe, stages: Mapping[str, Mapping[str, Any]]) -> Recipe:
    values = file.model_dump(include=set(Recipe.model_fields))
    for stage in STAGES:
        values[stage] = merge_stage(values[stage], stages[stage])
    values |= stages["recipe"]
    try:
        return Recipe(**values)
    except ValidationError as error:
        raise UsageError("--set: " + "; ".join(validation_lines(error))) from error


def _fit(parts: Mapping[str, tuple[Any, Options]]) -> None:
    """Refuse a cell in which a plugin needs what no other provides."""
    for kind, (plugin, options) in parts.items():
        others: frozenset[str] = frozenset().union(
            *(other.provides(chosen) for name, (other, chosen) in parts.items() if name != kind)
        )
        if kind != "dataset":
            # Many backbones can do both; the images decide which it is.
            others -= AXES - parts["dataset"][0].provides(parts["dataset"][1])
        if missing := sorted(plugin.needs(options) - others):
            names = ", ".join(other.name for name, (other, _) in parts.items() if name != kind)
            raise UsageError(f"{kind} {plugin.name} needs {', '.join(missing)}, which none of {names} provides")
