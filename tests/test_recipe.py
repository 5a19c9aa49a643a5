"""Recipes: budgets, files on disk, and what a wrong one is told."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import mae_bench_plugins.datasets as first_party
from mae_bench.errors import InputError, UsageError
from mae_bench.recipe import Finetune, Recipe, RecipeFile, Stage, load_recipe, recipe_names

DATASETS = Path(first_party.__file__).parent
SHIPPED = sorted(DATASETS.glob("*/recipes/*.toml"))

GOOD = """
summary = "two stages"
roi = [32, 32, 16]
[pretrain]
steps = 4
batch = 2
lr = 1e-3
[finetune]
epochs = 3
batch = 2
lr = 1e-3
[options.backbone.vit]
size = "tiny"
"""


def write(folder: Path, text: str, name: str = "mine") -> Path:
    (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.mark.parametrize("budget", [{}, {"steps": 3, "epochs": 3}])
def test_a_stage_has_exactly_one_budget(budget: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="exactly one of steps and epochs"):
        Stage(batch=2, lr=1e-3, **budget)


def test_accumulation_cuts_the_batch_into_equal_parts() -> None:
    assert Stage(steps=1, batch=6, lr=1e-3, accumulate=3).accumulate == 3
    with pytest.raises(ValidationError, match="accumulate must divide batch"):
        Stage(steps=1, batch=6, lr=1e-3, accumulate=4)


@settings(max_examples=40, deadline=None)
@given(epochs=st.integers(1, 50), cases=st.integers(1, 400), batch=st.integers(1, 50))
def test_an_epoch_passes_over_every_case(epochs: int, cases: int, batch: int) -> None:
    steps = Stage(epochs=epochs, batch=batch, lr=1e-3).total_steps(cases)
    assert steps % epochs == 0
    each = steps // epochs
    assert (each - 1) * batch < cases <= each * batch


def test_steps_do_not_depend_on_the_number_of_cases() -> None:
    stage = Stage(steps=17, batch=4, lr=1e-3)
    assert [stage.total_steps(cases) for cases in (1, 5, 1000)] == [17, 17, 17]


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch", 0), ("crops", 0), ("lr", 0), ("lr", -1), ("warmup", 1.5), ("weight_decay", -0.1), ("clip", 0),
     ("layer_decay", 0), ("layer_decay", 1.1), ("drop_path", 1), ("loss", "mse"), ("overlap", 1), ("checks", 0),
     ("flip", 2), ("foreground", -1), ("steps", 0), ("momentum", 0.9)],
)  # fmt: skip
def test_bounds_of_a_stage(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Finetune(**({"steps": 1, "batch": 2, "lr": 1e-3} | {field: value}))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_rate_is_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="lr"):
        Stage(steps=1, batch=2, lr=value)


@pytest.mark.parametrize("roi", [(), (0, 32, 32), (-32, 32, 32), (32,) * 4])
def test_a_crop_has_two_or_three_positive_sides(roi: tuple[int, ...]) -> None:
    stage = {"steps": 1, "batch": 1, "lr": 1e-3}
    with pytest.raises(ValidationError, match="roi"):
        Recipe(name="mine", summary="", roi=roi, pretrain=stage, finetune=stage)


def test_load(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), "mine")
    assert (recipe.name, recipe.roi, recipe.pretrain.steps, recipe.finetune.epochs) == ("mine", (32, 32, 16), 4, 3)
    assert recipe.for_plugin("backbone", "vit") == {"size": "tiny"}
    assert recipe.for_plugin("backbone", "resnet") == {}
    assert recipe.for_plugin("head", "unetr") == {}


def test_unknown_recipe_lists_what_there_is(tmp_path: Path) -> None:
    write(write(tmp_path, GOOD, "long"), GOOD, "short")
    assert recipe_names(tmp_path) == ["long", "short"]
    with pytest.raises(UsageError, match=r"'mine'.*there are: long, short"):
        load_recipe(tmp_path, "mine")


def test_broken_toml_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.toml: not valid TOML"):
        load_recipe(write(tmp_path, GOOD + "\n[pretrain"), "mine")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("lr = 1e-3", "lr = -1", "pretrain.lr"),
        ("lr = 1e-3", "lr = 1e-3\nmomentum = 0.9", "pretrain.momentum"),
        ("batch = 2", "batch = 'two'", "pretrain.batch"),
        ("epochs = 3", "epochs = 3\nsteps = 4", "finetune"),
        ("roi = [32, 32, 16]", "", "roi"),
        ('summary = "two stages"', 'summary = "two stages"\ncolour = "blue"', "colour"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=r"mine\.toml: not a valid recipe") as caught:
        load_recipe(write(tmp_path, GOOD.replace(old, new, 1)), "mine")
    assert any(line.startswith(f"{field}:") for line in caught.value.problems), caught.value.problems


def test_the_name_comes_from_the_file_name_alone(tmp_path: Path) -> None:
    """`name` is a field of a recipe, so someone will write it into the file."""
    with pytest.raises(InputError, match=r"mine\.toml: name: "):
        load_recipe(write(tmp_path, 'name = "other"\n' + GOOD), "mine")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = load_recipe(path.parent, path.stem)
    assert isinstance(recipe, RecipeFile)
    assert recipe.name == path.stem
    assert set(recipe.options) <= {"backbone", "pretrain", "head"}


def test_every_data_set_has_a_recipe_for_tests_and_one_for_demonstrations() -> None:
    for folder in DATASETS.glob("*/recipes"):
        assert {"smoke", "demo"} <= set(recipe_names(folder))


def test_the_papers_brats_settings() -> None:
    """PAPER 3: published rates are scaled by 6 cases / 256; warm-up is 10 epochs of 500 and of 300."""
    recipe = load_recipe(DATASETS / "brats" / "recipes", "paper")
    pretrain, finetune = recipe.pretrain, recipe.finetune
    assert recipe.roi == (128, 128, 128)
    assert (pretrain.epochs, pretrain.batch, pretrain.crops) == (500, 6, 4)
    assert (finetune.epochs, finetune.batch, finetune.crops) == (300, 6, 1)
    assert pretrain.lr == pytest.approx(6.4e-3 * 6 / 256, rel=2e-3)
    assert finetune.lr == pytest.approx(1.72e-2 * 6 / 256, rel=2e-3)
    assert pretrain.warmup == pytest.approx(10 / 500)
    assert finetune.warmup == pytest.approx(10 / 300, rel=3e-3)
    assert (pretrain.betas, pretrain.weight_decay) == (finetune.betas, finetune.weight_decay) == ((0.9, 0.95), 0.05)
    assert (finetune.layer_decay, finetune.drop_path, finetune.loss) == (0.75, 0.1, "dice")
    assert (pretrain.total_steps(387), finetune.total_steps(387)) == (32_500, 19_500)
    assert recipe.for_plugin("pretrain", "mae") == {
        "ratio": 0.125, "decoder_dim": 384, "decoder_depth": 8, "decoder_heads": 12,
    }  # fmt: skip
