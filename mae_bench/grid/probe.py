"""What stages would cost: measured on a few steps of each kind, in a folder that is thrown away."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mae_bench.engine import finetune, loop, pretrain
from mae_bench.engine.device import forget_peak_memory, make_accelerator, peak_memory_mb
from mae_bench.engine.evaluate import evaluate
from mae_bench.engine.fit import fit
from mae_bench.engine.onednn import use_onednn
from mae_bench.errors import MaeBenchError
from mae_bench.grid.plan import Plan, Task
from mae_bench.run import Cell, finetune_job, new_objective, pretrain_job, task_model
from mae_bench.store import Store
from mae_bench.values import digest

FEW, MORE = 2, 6  # steps of two runs; of their difference, what is paid once is no part
SOME = 8  # labelled cases that a head which only remembers is shown


class Predicted(NamedTuple):
    """Cost of a stage. memory_mb: highest use, of the GPU if `gpu`, else of this process."""

    seconds: float
    memory_mb: float
    gpu: bool


def predict(
    plan: Plan, store: Store, advance: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Predicted]:
    """Predict every task of a plan that is not done; tasks that differ in seeds alone are measured once.

    Returns:
        Costs by task. Those of a stage that cannot be run here (its memory, its losses) are NaN.
    """
    setting = loop.Setting(make_accelerator())
    device = setting.accelerator.device
    measured: dict[str, Predicted] = {}
    found: dict[str, Predicted] = {}
    ahead = [task for task in plan.tasks.values() if not task.done]
    for number, task in enumerate(ahead, 1):
        cell = plan.cells[task.cells[0]].cell
        assert cell is not None
        kind = _kind(task, cell)
        if kind not in measured:
            work = _pretraining if task.work.stage == "pretrain" else _finetuning
            forget_peak_memory(device)
            with tempfile.TemporaryDirectory() as folder:
                try:
                    seconds = work(cell, store, Path(folder), setting)
                except (MaeBenchError, MemoryError, RuntimeError):
                    seconds = math.nan
            measured[kind] = Predicted(round(seconds, 2), round(peak_memory_mb(device), 1), device.type == "cuda")
        found[task.id] = measured[kind]
        advance(number, len(ahead))
    return found


def _kind(task: Task, cell: Cell) -> str:
    """What decides the cost of a stage: its specification without seeds."""
    spec = cell.spec.model_dump(mode="json", exclude={"seed", "pretrain_seed"})
    if task.work.stage == "pretrain":
        spec = {name: spec[name] for name in ("dataset", "data", "protocol", "backbone", "pretrain", "recipe")}
    return digest([task.work.stage, spec])


def _pretraining(cell: Cell, store: Store, folder: Path, setting: loop.Setting) -> float:
    _, objective = new_objective(cell)
    if objective is None:  # weights are read from a file
        return 0.0
    return _training(pretrain_job(cell, objective, folder, setting), folder)


def _finetuning(cell: Cell, store: Store, folder: Path, setting: loop.Setting) -> float:
    """Training, and predicting: the selection cases at each check, the test cases once."""
    spec, data = cell.spec, cell.data
    model, _ = task_model(cell, store)
    looks = len(data.split.test)
    if hasattr(model, "remember"):
        labelled = cell.labelled[:SOME]
        fitting: float = fit(model, spec, data.prepared, labelled, setting)["seconds"]
        training = fitting * len(cell.labelled) / len(labelled)
    else:
        training = _training(finetune_job(cell, model, folder, setting), folder)
        looks += spec.recipe.finetune.checks * len(data.split.val)
    model = use_onednn(model).to(setting.accelerator.device)
    raw = {case.id: case for case in data.layout.cases}
    began = time.monotonic()
    dataset, one = cell.chosen.plugin("dataset"), data.split.test[:1]
    evaluate(model, spec, data.task, dataset, data.prepared, raw, data.root, one, folder, setting)
    return training + looks * (time.monotonic() - began)


def _training(job: pretrain.Job | finetune.Job, folder: Path) -> float:
    """Seconds of all steps of a job. The sites of a federation train in turn: their steps add up."""
    times = []
    for steps in (FEW, MORE):
        plan = replace(job.plan(folder=folder / str(steps)), steps=steps, check=None)
        times.append(loop.train(plan, job.setting).seconds)
    federation = job.spec.federation if job.spec.federates(job.stage) else None
    sites = 1 if federation is None or federation.only is not None else federation.sites * federation.participation
    return job.steps * sites * max(times[1] - times[0], 0.0) / (MORE - FEW)
