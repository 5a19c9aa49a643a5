"""What a check is, whom it is about, and how a plugin goes through all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mae_bench.errors import InputError, MaeBenchError, UsageError
from mae_bench.recipe import load_recipe, validation_lines
from mae_bench.registry import Listed, Registry
from mae_bench.values import Options

OF_KIND = {"dataset": "dataset", "backbone": "backbone", "pretrain": "pretraining", "head": "head"}
Body = Callable[["Subject"], None]


class ContractError(AssertionError):
    """A plugin breaks the contract; the message says how."""


class DoesNotApply(Exception):
    """A check has nothing to look at in this plugin; the message says why."""


def require(held: bool, reason: str) -> None:
    """Raise ContractError unless `held`."""
    if not held:
        raise ContractError(reason)


@dataclass(frozen=True)
class Check:
    """One law of the contract. law: in one line. run: raises when the subject breaks it."""

    name: str
    law: str
    run: Body


@dataclass(frozen=True)
class Result:
    """What came of a check. ok: None when it does not apply. reason: why it failed or does not apply, else empty."""

    check: str
    law: str
    ok: bool | None
    reason: str
    seconds: float


def make_checks(bodies: Sequence[Body]) -> tuple[Check, ...]:
    """Checks from functions: their names with hyphens, and as the law the first line of their docstrings."""
    return tuple(
        Check(body.__name__.replace("_", "-"), (body.__doc__ or "").partition("\n")[0], body) for body in bodies
    )


@dataclass
class Subject:
    """The plugin under test.

    given: options to test it with, on top of `small_options`. folder: an empty folder for what checks write; checks of
    one subject share it. data: of a data set, a folder of real files, instead of its stand-in.
    """

    listed: Listed
    registry: Registry
    folder: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None

    @property
    def plugin(self) -> Any:
        """The plugin object."""
        return self.listed.plugin

    @property
    def options(self) -> Options:
        """The options that the plugin is tested with.

        Raises:
            DoesNotApply: it has options without defaults, and they are not given.
            UsageError: the given ones are not valid.
        """
        fields = self.plugin.Options.model_fields
        if missing := [name for name, about in fields.items() if about.is_required() and name not in self.given]:
            wanted = " ".join(f"--set {self.listed.kind}.{name}=..." for name in missing)
            raise DoesNotApply(f"has options without defaults: give {wanted}")
        make: Callable[..., Options] = self.plugin.Options
        # The smallest values need not go together; the defaults must.
        with suppress(ValidationError):
            return make(**{**small_options(self.listed, self.registry), **self.given})
        try:
            return make(**self.given)
        except ValidationError as error:
            raise UsageError(f"{self.plugin.name}: " + "; ".join(validation_lines(error))) from error


def small_options(listed: Listed, registry: Registry) -> dict[str, Any]:
    """Options that make a plugin quick to test.

    Of a data set: whole numbers at their lower bounds. Of others: what a `smoke` recipe recommends for them, one of
    the same distribution first.
    """
    if listed.kind == "dataset":
        properties = listed.plugin.Options.model_json_schema().get("properties", {})
        return {
            name: about["minimum"]
            for name, about in properties.items()
            if about.get("type") == "integer" and "minimum" in about
        }
    datasets = [each for each in registry.all() if each.kind == "dataset"]
    for each in sorted(datasets, key=lambda each: each.dist != listed.dist):
        with suppress(MaeBenchError, AttributeError):  # a broken data set is its own check's business
            if found := load_recipe(each.plugin.recipes, "smoke").for_plugin(listed.kind, listed.plugin.name):
                return dict(found)
    return {}


def checks_of(kind: str) -> tuple[Check, ...]:
    """The checks of plugins of `kind`: those of all kinds first. Imports no torch."""
    from mae_bench.testing import card

    if kind not in OF_KIND:
        raise UsageError(f"no kind of plugin {kind!r}; there are: {', '.join(OF_KIND)}")
    module = import_module(f"mae_bench.testing.{OF_KIND[kind]}")
    own: tuple[Check, ...] = module.CHECKS
    return card.CHECKS + own


def run_checks(subject: Subject, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Result]:
    """Run every check of the subject's kind; a failure never keeps the others from being run."""
    results = []
    checks = checks_of(subject.listed.kind)
    for number, check in enumerate(checks, 1):
        began, reason = time.perf_counter(), ""
        answer: bool | None = True
        try:
            check.run(subject)
        except DoesNotApply as error:
            answer, reason = None, str(error)
        except (ContractError, InputError, UsageError) as error:
            answer, reason = False, str(error)
        except Exception as error:  # a stranger's code may raise anything: that is a failure with a reason, too
            answer, reason = False, f"{type(error).__name__}: {error}"
        results.append(Result(check.name, check.law, answer, reason, round(time.perf_counter() - began, 3)))
        progress(number, len(checks))
    return results
