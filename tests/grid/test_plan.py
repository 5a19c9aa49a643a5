"""Plans: states of cells, stages that cells share, and what they would cost."""

from pathlib import Path

import pytest

from mae_bench.grid.file import Grid
from mae_bench.grid.plan import make_plan
from mae_bench.grid.probe import predict
from mae_bench.grid.work import Worker
from mae_bench.registry import registry
from mae_bench.store import Store
from tests.grid.tiny import tiny_grid


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def test_label_shares_and_heads_share_one_pre_training(store: Store) -> None:
    """Two label shares and two heads of two seeds: eight cells, two encoders."""
    grid = tiny_grid({"pretrain": "mae", "labels": [0.5, 1.0], "head": ["unetr", "linear"], "seed": [0, 1]})
    plan = make_plan(grid, store, registry(), {})
    encoders = [task for task in plan.tasks.values() if task.work.stage == "pretrain"]
    assert (len(plan.cells), len(encoders), len(plan.tasks)) == (8, 2, 10)
    assert sorted(len(task.cells) for task in encoders) == [4, 4]
    cells = [task for task in plan.tasks.values() if task.work.stage == "cell"]
    assert {task.needs[0] for task in cells} == {task.id for task in encoders}


def test_scratch_needs_no_encoder(store: Store) -> None:
    plan = make_plan(tiny_grid({"pretrain": "scratch"}), store, registry(), {})
    (task,) = plan.tasks.values()
    assert (task.needs, task.work.stage, task.done) == ((), "cell", False)


def test_what_cannot_be_is_refused_with_its_reason(store: Store) -> None:
    grid = tiny_grid({"pretrain": ["mae", "lsae"], "head": ["unetr", "classifier"]}, **{"pretrain.steps": 2})
    plan = make_plan(grid, store, registry(), {})
    states = {(cell.order.pretrain, cell.order.head): (cell.state, cell.reason) for cell in plan.cells}
    assert states["mae", "unetr"] == ("to do", "")
    assert states["mae", "classifier"][0] == "refused"
    assert "needs classification" in states["mae", "classifier"][1]
    assert "needs 2d" in states["lsae", "unetr"][1]
    assert len(plan.tasks) == 2


def test_without_data_the_others_are_planned(store: Store, tmp_path: Path) -> None:
    grid = Grid(
        title="t", summary="s",
        sweep=[{"dataset": "brats", "pretrain": "mae"}, *tiny_grid({"pretrain": "scratch"}).sweep],
        defaults=tiny_grid({"pretrain": "scratch"}).defaults,
    )  # fmt: skip
    grid = grid.model_copy(update={"defaults": grid.defaults.model_copy(update={"dataset": "mni152"})})
    sweep = grid.sweep[0].model_copy(update={"set": {}})
    plain = grid.defaults.model_copy(update={"set": {}})
    grid = grid.model_copy(update={"sweep": (sweep, grid.sweep[1]), "defaults": plain})
    plan = make_plan(grid, store, registry(), {})
    assert plan.cells[0].state == "no data"
    assert "medicaldecathlon" in plan.cells[0].reason
    assert plan.cells[1].state == "to do"
    elsewhere = make_plan(grid, store, registry(), {"brats": tmp_path / "nowhere"})
    assert "no such folder" in elsewhere.cells[0].reason


def test_what_is_done_is_known(store: Store) -> None:
    grid = tiny_grid({"pretrain": ["mae", "scratch"], "seed": 7})
    plan = make_plan(grid, store, registry(), {})
    encoder = next(task for task in plan.tasks.values() if task.work.stage == "pretrain")
    assert Worker().perform(encoder.work).status == "done"
    again = make_plan(grid, store, registry(), {})
    assert {task.id: task.done for task in again.tasks.values() if task.done} == {encoder.id: True}
    assert Worker().perform(encoder.work).status == "found"


@pytest.mark.slow
def test_costs_grow_with_steps_and_are_measured_once_per_kind(store: Store) -> None:
    grid = tiny_grid({"pretrain": "mae", "seed": [0, 1]}, **{"pretrain.steps": [50, 5000], "finetune.steps": 20})
    plan = make_plan(grid, store, registry(), {})
    found = predict(plan, store)
    assert set(found) == set(plan.tasks)
    seconds: dict[str, set[float]] = {}
    for task in plan.tasks.values():
        if task.work.stage == "pretrain":
            order = plan.cells[task.cells[0]].order
            seconds.setdefault(order.settings["pretrain.steps"], set()).add(found[task.id].seconds)
    (short,), (long,) = seconds["50"], seconds["5000"]
    assert long > 10 * short
    assert all(cost.memory_mb > 10 and not cost.gpu for cost in found.values())
