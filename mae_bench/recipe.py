"""Hyper-parameters and budget of a run. Recipes are TOML files beside the data set they are for."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from mae_bench.errors import InputError, UsageError
from mae_bench.values import Value


class Stage(Value):
    """Budget and optimiser of one training stage. The batch is counted in cases; each case gives `crops` crops."""

    steps: int | None = Field(None, ge=1, description="optimiser steps (give either steps or epochs)")
    epochs: int | None = Field(None, ge=1, description="passes over the training cases")
    batch: int = Field(ge=1, description="cases per step, over all processes together")
    crops: int = Field(1, ge=1, description="crops per case and step")
    lr: float = Field(gt=0, description="peak learning rate, after any scaling by batch size")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps with a linearly rising rate")
    schedule: Literal["cosine", "constant", "step"] = Field(
        "cosine", description="how the rate falls after the warm-up; step: tenfold at each milestone"
    )
    milestones: tuple[float, ...] = Field((), description="of the `step` schedule, as shares of the steps")
    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="sgd takes its momentum from betas[0]")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Adam's betas")
    weight_decay: float = Field(0.05, ge=0, description="never on biases, norms, tokens and positions")
    clip: float | None = Field(None, gt=0, description="gradient norm limit")
    intensity: float = Field(0.0, ge=0, lt=1, description="random scale and shift, up to this much")
    area: tuple[float, float] | None = Field(
        None, description="random resized crops of this share of the image, from and to, instead of crops at its scale"
    )
    rotate: float = Field(0.0, ge=0, le=180, description="random rotation, up to this many degrees")
    accumulate: int = Field(1, ge=1, description="gradient accumulation: the batch is cut into so many parts")

    @model_validator(mode="after")
    def _one_budget(self) -> "Stage":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        if self.batch % self.accumulate:
            raise ValueError("accumulate must divide batch")
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError("area must rise from above 0 to at most 1")
        return self

    def total_steps(self, cases: int) -> int:
        """Optimiser steps when there are `cases` training cases; an epoch is ceil(cases / batch) steps."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * -(-cases // self.batch)


class Finetune(Stage):
    """Fine-tuning adds what the supervised stage alone has."""

    layer_decay: float = Field(0.75, gt=0, le=1, description="learning-rate factor per encoder block, from the top")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the last block, rising linearly")
    loss: Literal["dice", "dice_ce"] = Field(
        "dice_ce", description="of segmentation; classification has binary cross-entropy"
    )
    foreground: float = Field(0.5, ge=0, le=1, description="share of crops centred on a labelled voxel")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a flip per axis the task allows")
    intensity: float = Field(0.1, ge=0, lt=1, description="random scale and shift, up to this much")
    randaugment: int | None = Field(
        None, ge=0, le=10, description="magnitude of RandAugment (Cubuk et al. 2020) on 2-D images; None: without"
    )
    checks: int = Field(4, ge=1, description="how often the checkpoint is compared on the selection cases")
    overlap: float = Field(0.5, ge=0, lt=1, description="overlap of sliding windows")


class Recipe(Value):
    """All that is chosen by neither the plugins nor the protocol."""

    name: str
    summary: str
    roi: tuple[PositiveInt, ...] = Field(
        min_length=2, max_length=3, description="crop size in voxels of the prepared grid"
    )
    pretrain: Stage
    finetune: Finetune


class RecipeFile(Recipe):
    """A recipe as written on disk: with the options it recommends for plugins, by kind and plugin name."""

    options: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="what differs for a pre-training, a backbone, or both: by `name`, `*/backbone`, `name/backbone`",
    )

    def for_method(self, pretrain: str, backbone: str) -> Recipe:
        """The recipe for a pre-training of a backbone: what differs replaces the field, stages field by field."""
        values = self.model_dump(include=set(Recipe.model_fields))
        for name in (pretrain, f"*/{backbone}", f"{pretrain}/{backbone}"):
            for field, value in self.methods.get(name, {}).items():
                values[field] = merge_stage(values.get(field, {}), value) if isinstance(value, dict) else value
        return Recipe(**values)

    @model_validator(mode="after")
    def _methods_are_recipes(self) -> "RecipeFile":
        for method in self.methods:
            pretrain, _, backbone = method.partition("/")
            self.for_method(pretrain, backbone)
        return self

    def for_plugin(self, kind: str, name: str) -> Mapping[str, Any]:
        """Options this recipe recommends for the plugin `name` of `kind` (backbone, pretrain, head)."""
        return self.options.get(kind, {}).get(name, {})


def merge_stage(stage: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A stage with some fields changed: `false` takes a setting away that not every method has.

    Steps and epochs are two ways to say one thing: giving one drops the other.
    """
    other = {"steps": "epochs", "epochs": "steps"}
    dropped = {other[name]: None for name in changes if name in other}
    return {**stage, **dropped, **{name: None if value is False else value for name, value in changes.items()}}


def recipe_names(folder: Path) -> list[str]:
    """Names of the recipes in `folder`."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_recipe(folder: Path, name: str) -> RecipeFile:
    """Read `folder/name.toml`. A file that says `extends = "other"` holds only what differs from that recipe.

    Raises:
        UsageError: no such recipe.
        InputError: the file is not valid; the message names the field.
    """
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"no recipe {name!r} for this data set; there are: {', '.join(recipe_names(folder))}")
    try:
        fields = tomllib.loads(path.read_text())
        if "name" in fields:
            raise InputError(f"{path}: name: a recipe is named by its file; remove this field")
        if base := fields.pop("extends", None):
            fields = _over(load_recipe(folder, base).model_dump(exclude={"name"}), fields)
        return RecipeFile(name=name, **fields)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: not a valid recipe", problems=validation_lines(error)) from error


def _over(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, other values replaced."""
    merged = dict(base)
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            merged[name] = (
                merge_stage(base[name], value) if name in ("pretrain", "finetune") else _over(base[name], value)
            )
        else:
            merged[name] = value
    return merged


def validation_lines(error: ValidationError) -> list[str]:
    """One line per fault of a pydantic error: field, what is wrong, what was given."""
    return [
        f"{'.'.join(str(part) for part in fault['loc']) or '(whole)'}: {fault['msg']}"
        + (f" (given {fault['input']!r})" if not isinstance(fault["input"], dict) else "")
        for fault in error.errors()
    ]
