"""From a grid file to tasks: which cells can be run, which stages they share, and which of them are done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mae_bench.errors import MaeBenchError, UsageError
from mae_bench.grid.file import Grid, Order
from mae_bench.grid.work import Opener, Work
from mae_bench.registry import Registry
from mae_bench.resolve import resolve
from mae_bench.run import Cell, has_encoder
from mae_bench.store import Store

State = Literal["done", "to do", "refused", "no data"]


@dataclass(frozen=True)
class PlannedCell:
    """One cell of the grid. key: of its record, when its data are there. reason: why it is refused or has no data."""

    order: Order
    state: State
    reason: str = ""
    key: str = ""
    cell: Cell | None = None
    encoder: str = ""
    """Name of the task that makes the encoder it starts from, if it starts from one."""


@dataclass(frozen=True)
class Task:
    """One stage. needs: tasks that come first. cells: numbers of the cells that need it."""

    id: str
    label: str
    work: Work
    needs: tuple[str, ...] = ()
    cells: tuple[int, ...] = ()
    done: bool = False


@dataclass(frozen=True)
class Plan:
    """Every cell of the grid, and the stages that they come down to."""

    cells: tuple[PlannedCell, ...]
    tasks: dict[str, Task] = field(default_factory=dict)


def make_plan(
    grid: Grid,
    store: Store,
    registry: Registry,
    data: Mapping[str, Path],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Resolve every cell, open its data (stand-ins are written and prepared), and join stages that cells share.

    Args:
        data: folders of data sets, by name.
    """
    opener = Opener(store, data)
    orders = grid.orders()
    cells = []
    for number, order in enumerate(orders, 1):
        cells.append(_plan_cell(order, opener, store, registry))
        advance(number, len(orders))
    tasks: dict[str, Task] = {}
    for number, planned in enumerate(cells):
        if planned.cell is None:
            continue
        data_folder = data.get(planned.order.dataset)
        needs: tuple[str, ...] = ()
        if planned.encoder and planned.state != "done":
            needs = (planned.encoder,)
            key = planned.encoder.partition(":")[2]
            work = Work(stage="pretrain", order=planned.order, store=store.root, data=data_folder)
            label = f"encoder of {planned.order.label()}"
            made = store.finished("encoders", key) is not None
            _join(tasks, Task(planned.encoder, label, work, cells=(number,), done=made))
        work = Work(stage="cell", order=planned.order, store=store.root, data=data_folder)
        done = planned.state == "done"
        _join(tasks, Task(f"cell:{planned.key}", planned.order.label(), work, needs, (number,), done))
    return Plan(tuple(cells), tasks)


def _join(tasks: dict[str, Task], task: Task) -> None:
    """Add a task, or the cells that it is for to the task that is the same."""
    if task.id in tasks:
        task = replace(tasks[task.id], cells=(*tasks[task.id].cells, *task.cells))
    tasks[task.id] = task


def _plan_cell(order: Order, opener: Opener, store: Store, registry: Registry) -> PlannedCell:
    try:
        chosen = resolve(order.request(), registry)
    except UsageError as error:
        return PlannedCell(order, "refused", str(error))
    try:
        cell = opener.open(order, chosen)
    except UsageError as error:
        return PlannedCell(order, "refused", str(error))
    except MaeBenchError as error:
        return PlannedCell(order, "no data", str(error))
    key = cell.spec.key()
    record = store.read_record(key)
    encoder = f"encoder:{cell.spec.pretrain_key()}" if has_encoder(cell) else ""
    done = record is not None and record.status == "ok"
    return PlannedCell(order, "done" if done else "to do", "", key, cell, encoder)
