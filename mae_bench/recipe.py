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
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW betas")
    weight_decay: float = Field(0.05, ge=0, description="AdamW decay; never on biases, norms, tokens and positions")
    clip: float | None = Field(None, gt=0, description="gradient norm limit")
    accumulate: int = Field(1, ge=1, description="gradient accumulation: the batch is cut into so many parts")

    @model_validator(mode="after")
    def _one_budget(self) -> "Stage":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        if self.batch % self.accumulate:
            raise ValueError("accumulate must divide batch")
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

    def for_plugin(self, kind: str, name: str) -> Mapping[str, Any]:
        """Options this recipe recommends for the plugin `name` of `kind` (backbone, pretrain, head)."""
        return self.options.get(kind, {}).get(name, {})


def recipe_names(folder: Path) -> list[str]:
    """Names of the recipes in `folder`."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_recipe(folder: Path, name: str) -> RecipeFile:
    """Read `folder/name.toml`.

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
        return RecipeFile(name=name, **fields)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: not a valid recipe", problems=validation_lines(error)) from error


def validation_lines(error: ValidationError) -> list[str]:
    """One line per fault of a pydantic error: field, what is wrong, what was given."""
    return [
        f"{'.'.join(str(part) for part in fault['loc']) or '(whole)'}: {fault['msg']}"
        + (f" (given {fault['input']!r})" if not isinstance(fault["input"], dict) else "")
        for fault in error.errors()
    ]
