"""Grid files: comparisons as data. A field that holds a list is an axis; a sweep is the product of its axes."""

import itertools
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mae_bench.errors import InputError
from mae_bench.recipe import validation_lines
from mae_bench.resolve import Request
from mae_bench.values import Value, digest

Names = str | list[str]
Scalar = bool | int | float | str


class Order(Value):
    """One cell as asked for, before any default is filled in. settings: as `--set` has them, values as JSON text."""

    dataset: str
    pretrain: str
    backbone: str
    head: str | None
    recipe: str | None
    demo: bool
    protocol: str | None
    labels: float = Field(gt=0, le=1)
    seed: int = Field(ge=0)
    pretrain_seed: int = Field(ge=0)
    settings: dict[str, str]

    def request(self) -> Request:
        """What `resolve` fills in."""
        names = (self.dataset, self.pretrain, self.backbone, self.head, self.recipe, self.demo)
        return Request(*names, settings=self.settings)

    def label(self) -> str:
        """The cell in a few words."""
        parts = [self.dataset, self.backbone, self.pretrain, *([self.head] if self.head else [])]
        short = {name: name.partition(".")[2] for name in self.settings}
        alike = Counter(short.values())
        parts += [
            f"{short[name] if alike[short[name]] == 1 else name}={json.loads(text)}"
            for name, text in self.settings.items()
        ]
        return " ".join([*parts, *([f"labels={self.labels:g}"] if self.labels < 1 else []), f"seed={self.seed}"])


class Sweep(Value):
    """Cells that differ along the fields that are lists; every combination is one cell."""

    dataset: Names | None = Field(None, description="data set plugins")
    pretrain: Names | None = Field(None, description="pre-training plugins")
    backbone: Names | None = Field(None, description="backbone plugins [vit]")
    head: Names | None = Field(None, description="head plugins [what fits the task]")
    recipe: Names | None = Field(None, description="recipes [paper; demo with demo = true]")
    demo: bool | None = Field(None, description="use the data sets' stand-ins")
    protocol: Names | None = Field(None, description="protocols [each data set's first]")
    labels: float | list[float] | None = Field(None, description="shares of the training labels [1.0]")
    seed: int | list[int] | None = Field(None, description="seeds of fine-tuning [0]")
    pretrain_seed: int | list[int] | None = Field(None, description="seeds of pre-training [the same as seed]")
    set: dict[str, Scalar | list[Scalar | list[Scalar]]] = Field(
        default_factory=dict, description="settings as --set takes them; a list is an axis, a list in it one value"
    )

    def over(self, defaults: "Sweep") -> "Sweep":
        """The sweep with what it leaves open taken from `defaults`."""
        own = {name: value for name, value in self if value is not None}
        return Sweep(**{**dict(defaults), **own, "set": {**defaults.set, **self.set}})

    def orders(self) -> list[Order]:
        """All cells, the last axis running fastest, seeds last of all."""
        fallback: dict[str, Any] = {"backbone": "vit", "demo": False, "labels": 1.0, "seed": 0}
        axes: dict[str, list[Any]] = {}
        for name in ("dataset", "protocol", "recipe", "demo", "labels", "backbone", "head", "pretrain"):
            axes[name] = _as_list(getattr(self, name), fallback.get(name))
        for name, value in self.set.items():
            axes[name] = [json.dumps(each) for each in _as_list(value, None)]
        axes["pretrain_seed"] = _as_list(self.pretrain_seed, None)
        axes["seed"] = _as_list(self.seed, 0)
        found = []
        for values in itertools.product(*axes.values()):
            cell = dict(zip(axes, values, strict=True))
            settings = {name: cell.pop(name) for name in self.set}
            if cell["pretrain_seed"] is None:
                cell["pretrain_seed"] = cell["seed"]
            found.append(Order(**cell, settings=settings))
        return found


class Grid(Value):
    """A comparison: what it asks, and the sweeps that answer it."""

    title: str
    summary: str = Field(description="what is compared, and what may be learnt from it")
    source: str = Field("", description="the table or figure it repeats, if any")
    defaults: Sweep = Field(default_factory=lambda: Sweep(), description="fields of every sweep that leaves them open")
    sweep: tuple[Sweep, ...] = Field(min_length=1, description="sweeps; a cell that two of them share is run once")

    def orders(self) -> list[Order]:
        """All cells, each once, in the order of the file."""
        found = [order for sweep in self.sweep for order in sweep.over(self.defaults).orders()]
        return list({digest(order.model_dump(mode="json")): order for order in found}.values())


def _as_list(value: Any, fallback: Any) -> list[Any]:
    if value is None:
        return [fallback]
    return list(value) if isinstance(value, list) else [value]


def load_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        InputError: it is not there or not valid; the message names the field.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such grid file")
    try:
        grid = Grid(**tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: not a valid grid", problems=validation_lines(error)) from error
    for number, sweep in enumerate(grid.sweep):
        for name in ("dataset", "pretrain"):
            if getattr(sweep.over(grid.defaults), name) is None:
                raise InputError(f"{path}: sweep.{number}.{name}: missing, here and in defaults")
        try:
            sweep.over(grid.defaults).orders()
        except ValidationError as error:
            lines = [f"sweep.{number}.{line}" for line in validation_lines(error)]
            raise InputError(f"{path}: not a valid grid", problems=lines) from error
    return grid
