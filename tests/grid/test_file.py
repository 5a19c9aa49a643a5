"""Grid files: what they ask for, what is refused, and that those shipped are valid."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_bench.errors import InputError, UsageError
from mae_bench.grid.file import Grid, Sweep, load_grid
from mae_bench.registry import registry
from mae_bench.resolve import resolve

GRIDS = Path(__file__).parents[2] / "benchmarks" / "grids"
BASE = {"title": "t", "summary": "s"}
NEEDS_FILE = "imagenet"


def grid(**fields: object) -> Grid:
    return Grid(**{**BASE, **fields})  # type: ignore[arg-type]


def test_lists_are_axes() -> None:
    made = grid(
        defaults={"dataset": "brats", "seed": [0, 1], "set": {"finetune.steps": 5}},
        sweep=[{"pretrain": ["mae", "scratch"], "labels": [0.1, 1.0]}],
    )
    orders = made.orders()
    assert len(orders) == 8
    assert {(order.pretrain, order.labels, order.seed) for order in orders} == set(
        itertools.product(("mae", "scratch"), (0.1, 1.0), (0, 1))
    )
    assert all(order.settings == {"finetune.steps": "5"} for order in orders)
    assert all(order.pretrain_seed == order.seed for order in orders)


def test_a_label_names_settings_shortly_unless_two_would_be_alike() -> None:
    settings = {"recipe.roi": [[8, 8, 8]], "pretrain.steps": 3, "finetune.steps": 5}
    (order,) = grid(sweep=[{"dataset": "brats", "pretrain": "mae", "labels": 0.5, "set": settings}]).orders()
    assert order.label() == "brats vit mae roi=[8, 8, 8] pretrain.steps=3 finetune.steps=5 labels=0.5 seed=0"


def test_a_sweep_goes_before_the_defaults() -> None:
    made = grid(
        defaults={"dataset": "brats", "recipe": "demo", "set": {"a.b": 1, "c.d": 2}},
        sweep=[{"pretrain": "mae", "recipe": "smoke", "set": {"a.b": [3, 4]}}],
    )
    assert [(order.recipe, order.settings) for order in made.orders()] == [
        ("smoke", {"a.b": "3", "c.d": "2"}), ("smoke", {"a.b": "4", "c.d": "2"}),
    ]  # fmt: skip


def test_a_list_in_a_list_is_one_value() -> None:
    made = grid(sweep=[{"dataset": "brats", "pretrain": "mae", "set": {"recipe.roi": [[32, 32, 32], [48, 48, 32]]}}])
    assert [json.loads(order.settings["recipe.roi"]) for order in made.orders()] == [[32, 32, 32], [48, 48, 32]]


def test_a_cell_that_two_sweeps_share_is_run_once() -> None:
    sweep = {"dataset": "brats", "pretrain": "mae"}
    assert len(grid(sweep=[sweep, {**sweep, "pretrain": ["mae", "moco"]}]).orders()) == 2


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True), st.lists(st.floats(0.01, 1), max_size=4))
def test_every_combination_is_there_once(seeds: list[int], labels: list[float]) -> None:
    labels = list(dict.fromkeys(labels)) or [1.0]
    orders = grid(sweep=[Sweep(dataset="brats", pretrain="mae", seed=seeds, labels=labels)]).orders()
    assert [(order.labels, order.seed) for order in orders] == list(itertools.product(labels, seeds))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title = ", "not valid TOML"),
        ('title = "t"', "summary: Field required"),
        ('title = "t"\nsummary = "s"\nsweep = []', "sweep"),
        ('title = "t"\nsummary = "s"\n[[sweep]]\ndataset = "brats"', r"sweep\.0\.pretrain: missing"),
        ('title = "t"\nsummary = "s"\n[[sweep]]\ndatasets = "brats"', r"sweep\.0\.datasets: Extra inputs"),
        ('title = "t"\nsummary = "s"\n[[sweep]]\nlabels = "all"', r"sweep\.0\.labels"),
        ('title = "t"\nsummary = "s"\n[[sweep]]\ndataset = "x"\npretrain = "y"\nlabels = 10', r"sweep\.0\.labels"),
        ('title = "t"\nsummary = "s"\n[[sweep]]\ndataset = "x"\npretrain = "y"\nseed = -1', r"sweep\.0\.seed"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=told) as refused:
        load_grid(path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such grid file"):
        load_grid(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_grids_that_are_shipped_resolve(path: Path) -> None:
    """Every cell of every shipped grid is known to the plugins; what is refused is refused for a reason of its own."""
    orders = load_grid(path).orders()
    assert orders
    refused = []
    for order in orders:
        try:
            resolve(order.request(), registry())
        except (UsageError, InputError) as error:
            refused.append(str(error))
    # Weights that nobody has downloaded yet are all that may be missing.
    assert all("file" in reason or "weights" in reason for reason in refused), refused
    assert len(refused) < len(orders)


def test_the_schema_is_fresh() -> None:
    """`python tests/grid/test_file.py` writes it."""
    assert json.loads((GRIDS / "schema.json").read_text()) == Grid.model_json_schema()


if __name__ == "__main__":
    (GRIDS / "schema.json").write_text(json.dumps(Grid.model_json_schema(), indent=1) + "\n")
