"""Checks of what every plugin carries: name, summary, options, words, licence, and that its card is light."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import entry_points, metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mae_bench.errors import UsageError
from mae_bench.hookspecs import PROJECT
from mae_bench.registry import KINDS, Listed, Registry
from mae_bench.resolve import _fit
from mae_bench.testing.contract import DoesNotApply, Subject, make_checks, require
from mae_bench.values import Options

NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
TASKS = frozenset({"segmentation", "classification", "survival"})
STANDARD = frozenset({"2d", "3d", "tokens", "map", "hidden", "pooled"}) | TASKS
HEAVY = ("torch", "torchvision", "monai", "timm", "accelerate", "transformers", "sklearn", "nilearn")
SECONDS = 1.0  # of processor time, on top of importing mae_bench

# Runs in a fresh interpreter: imports the module, calls what `run` calls before any data is read, says what came along.
PROBE = """
import importlib, json, sys, time
import mae_bench.registry, mae_bench.resolve
module, hook, name, given = sys.argv[1:]
began = time.process_time()
found = importlib.import_module(module)
plugin = next(each for each in getattr(found, hook)() if each.name == name)
seconds = time.process_time() - began
options = plugin.Options(**json.loads(given))
plugin.provides(options), plugin.needs(options)
if hook == "mae_bench_backbones":
    try:
        plugin.check(options, (32, 32))
    except Exception:
        pass
print(json.dumps([seconds, sorted(name for name in sys.modules if "." not in name)]))
"""


def named(subject: Subject) -> None:
    """The name is a lower-case word, and the summary one line."""
    name, summary = subject.plugin.name, subject.plugin.summary
    require(isinstance(name, str) and NAME.fullmatch(name) is not None, f"name {name!r} is not a lower-case word")
    good = isinstance(summary, str) and summary.strip() == summary and 0 < len(summary) <= 120
    require(good and "\n" not in summary, f"summary {summary!r} is not one line of at most 120 characters")


def licence(subject: Subject) -> None:
    """The distribution says under which licence it is given out."""
    about = metadata(subject.listed.dist)
    told = [line for field in ("License-Expression", "License") for line in about.get_all(field) or []]
    told += [line for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    require(any(told), f'{subject.listed.dist}: no licence in its metadata; add `license = "..."` to [project]')


def options_bounded(subject: Subject) -> None:
    """Every option has a one-line description, and every number among them a bound."""
    kind = subject.plugin.Options
    require(isinstance(kind, type) and issubclass(kind, Options), f"Options is {kind!r}, no subclass of values.Options")
    properties = kind.model_json_schema().get("properties", {})
    for name, about in properties.items():
        told = about.get("description", "")
        require(bool(told.strip()) and "\n" not in told, f"option {name}: no one-line description")
        require(not _unbounded(about), f"option {name}: a number without a bound (ge, gt, le or lt)")


def _unbounded(about: dict[str, Any]) -> bool:
    """Whether some number in a JSON schema has no bound."""
    if "enum" in about or "const" in about:
        return False
    if about.get("type") in ("integer", "number"):
        return not {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"} & set(about)
    parts = [*about.get("anyOf", []), *about.get("prefixItems", [])]
    parts += [about[name] for name in ("items", "additionalProperties") if isinstance(about.get(name), dict)]
    return any(map(_unbounded, parts))


def options_valid(subject: Subject) -> None:
    """Default options are valid, come back from JSON as they were, and unknown ones are refused by name."""
    options: BaseModel = subject.options
    again = type(options).model_validate_json(options.model_dump_json())
    require(again == options, f"options come back from JSON as {again!r}, not {options!r}")
    for name, about in type(options).model_fields.items():
        if not about.is_required():
            value = about.get_default(call_default_factory=True)
            try:
                type(options)(**{**options.model_dump(exclude={name}), name: value})
            except ValidationError as error:
                # Only a fault of this very field: a default need not go with the small values of the others.
                at = [fault["loc"][:1] for fault in error.errors()]
                require((name,) not in at, f"option {name}: its default {value!r} is not valid")
    try:
        type(options)(**{**options.model_dump(), "no_such_option": 1})
    except ValidationError as error:
        require("no_such_option" in str(error), "an unknown option is refused without naming it")
    else:
        require(False, "an unknown option is taken without a word")


def words(subject: Subject) -> None:
    """It provides only words that mean something, and needs only what some plugin of another kind provides."""
    plugin, options = subject.plugin, subject.options
    provides, needs = plugin.provides(options), plugin.needs(options)
    for word in ("provides", "needs"):
        said = getattr(plugin, word)(options)
        require(
            isinstance(said, frozenset) and all(isinstance(each, str) for each in said),
            f"{word} gives {said!r}, not a frozenset of words",
        )
    others = [each for each in subject.registry.all() if each.kind != subject.listed.kind]
    needed = _all_words(others, subject.registry, "needs")
    provided = _all_words(others, subject.registry, "provides")
    require(provides <= STANDARD | needed, f"provides {sorted(provides - STANDARD - needed)}, which nothing here needs")
    # A head may come before the first data set of its task.
    provided |= TASKS
    require(needs <= provided, f"needs {sorted(needs - provided)}, which nothing here provides")


def _all_words(plugins: list[Listed], registry: Registry, word: str) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for each in plugins:
        with suppress(Exception):  # what is wrong with another plugin is for its own checks to say
            found |= getattr(each.plugin, word)(Subject(each, registry, Path()).options)
    return found


def refusal(subject: Subject) -> None:
    """A cell that lacks what it needs is refused, naming the plugin and what is missing."""
    plugin, options = subject.plugin, subject.options
    if not plugin.needs(options):
        raise DoesNotApply("needs nothing")
    kind = next(each for each in KINDS if each != subject.listed.kind)
    for word in sorted(plugin.needs(options)):
        rest = _Provider(plugin.needs(options) - {word})
        try:
            _fit({subject.listed.kind: (plugin, options), kind: (rest, Options())})
        except UsageError as error:
            require(word in str(error) and plugin.name in str(error), f"refused without a reason: {error}")
        else:
            require(False, f"a cell without {word} is not refused")


class _Provider:
    """Stands in for the rest of a cell."""

    name = "the rest"

    def __init__(self, words: frozenset[str]) -> None:
        self.words = words

    def provides(self, options: Options) -> frozenset[str]:
        return self.words

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset()


def light(subject: Subject) -> None:
    """Importing the card, and what is asked before data are read, takes no torch and under a second."""
    listed = subject.listed
    given = json.dumps(subject.options.model_dump(mode="json"))
    command = [sys.executable, "-c", PROBE, entry_module(listed), KINDS[listed.kind], listed.plugin.name, given]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    require(done.returncode == 0, f"cannot be imported by itself: {done.stderr.strip().splitlines()[-1:]}")
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    came = [name for name in HEAVY if name in modules]
    require(not came, f"importing {entry_module(listed)} brings {', '.join(came)}; import them inside the methods")
    require(seconds < SECONDS, f"importing {entry_module(listed)} takes {seconds:.1f} s of processor time")


def entry_module(listed: Listed) -> str:
    """The module that the plugin's entry point names."""
    for entry in entry_points(group=PROJECT):
        if entry.dist is not None and entry.dist.name == listed.dist:
            module = sys.modules.get(entry.module)
            hook = getattr(module, KINDS[listed.kind], None)
            if hook is not None and any(each.name == listed.plugin.name for each in hook()):
                return entry.module
    return type(listed.plugin).__module__


CHECKS = make_checks([named, licence, options_bounded, options_valid, words, refusal, light])
