"""`mae-bench grid`: many cells as one job."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mae_bench.cli import output
from mae_bench.errors import RunFailed, UsageError
from mae_bench.processes import is_first_process

if TYPE_CHECKING:
    from mae_bench.grid.plan import Plan

app = typer.Typer(no_args_is_help=True, help="Plan, run and follow a whole comparison.")

LOOK_EVERY = 2.0  # seconds between looks of `status --follow`

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="grid file, such as benchmarks/grids/demo.toml")]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", metavar="NAME=DIR", help="folder of a data set that is no stand-in")
]


@app.command("plan")
def plan(
    file: FileArgument,
    data: DataOption = None,
    probe: Annotated[bool, typer.Option(help="measure a few steps of each kind of stage to predict the cost")] = True,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Show every cell, the stages that cells share, what is refused and why, and what the rest would cost."""
    from mae_bench.grid.file import load_grid
    from mae_bench.grid.plan import make_plan
    from mae_bench.grid.probe import predict
    from mae_bench.registry import registry

    grid, place = load_grid(file), output.open_store(store)
    with output.reporting() as reporter:
        stage = output.stage_progress(reporter)
        made = make_plan(grid, place, registry(), parse_data(data or []), stage("plan"))
        costs = predict(made, place, stage("probe")) if probe else {}
    document = _document(made) | {"title": grid.title, "probed": probe}
    for task in document["tasks"]:
        task |= costs[task["id"]]._asdict() if task["id"] in costs else {}
        if probe and math.isnan(task.get("seconds", 0.0)):
            task |= {"seconds": None, "memory_mb": None, "reason": "cannot be run here: its memory or its losses"}
    ahead = [costs[task.id] for task in made.tasks.values() if not task.done and task.id in costs]
    left = [cost for cost in ahead if not math.isnan(cost.seconds)]
    document["predicted"] = {
        "seconds": round(sum(cost.seconds for cost in left), 1) if probe else None,
        "gpu_hours": round(sum(cost.seconds for cost in left if cost.gpu) / 3600, 3) if probe else None,
        "memory_mb": max((cost.memory_mb for cost in left), default=0.0) if probe else None,
    }
    output.show(document, as_json, lambda: _plan_table(grid.title, made, document))


@app.command(
    "run",
    epilog="Options of the executor are flags too: `--executor ray --slots 4 --gpus 1`; see `plugins info ray`.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run_grid(
    context: typer.Context,
    file: FileArgument,
    executor: Annotated[str, typer.Option(help="inline, ray, or that of a plugin")] = "inline",
    data: DataOption = None,
    checkpoint_minutes: Annotated[float, typer.Option(min=0.0, help="time between checkpoints")] = 5.0,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Run what is not done yet; what fails is a row, and exit code 4 at the end names it."""
    from dataclasses import replace

    from mae_bench.cli.run import parse_flags
    from mae_bench.grid.execution import Execution
    from mae_bench.grid.file import load_grid
    from mae_bench.grid.journal import Journal
    from mae_bench.grid.plan import make_plan
    from mae_bench.registry import EXECUTOR, registry
    from mae_bench.resolve import options_from_flags

    grid, place, plugins = load_grid(file), output.open_store(store), registry()
    runner = plugins.get(EXECUTOR, executor).plugin
    options = options_from_flags(EXECUTOR, runner, parse_flags(context.args))
    with output.reporting() as reporter:
        made = make_plan(grid, place, plugins, parse_data(data or []), output.stage_progress(reporter)("plan"))
        for identity, task in made.tasks.items():
            made.tasks[identity] = replace(
                task, work=task.work.model_copy(update={"checkpoint_minutes": checkpoint_minutes})
            )
        journal, ended = Journal(place, grid), Counter[str]()

        def tell(task: Any, outcome: Any) -> None:
            if not is_first_process():
                return
            ended[task.id] += 1
            words = {"done": f"done in {outcome.seconds:.0f} s", "found": "there already", "failed": outcome.reason}
            reporter.note(f"[{len(ended)}/{len(made.tasks)}] {task.label}: {words[outcome.status]}")

        journal.begin(made, executor)
        with runner.open(options, reporter) as pool:
            outcomes = Execution(made, journal, pool, tell).run()
    failed = {task: outcome.reason for task, outcome in outcomes.items() if outcome.status == "failed"}
    missing = [planned for planned in made.cells if planned.state == "no data"]
    document = _document(made, outcomes) | {"title": grid.title, "failed": failed}
    if is_first_process():
        output.show(document, as_json, lambda: _plan_table(grid.title, made, document))
    if failed or missing:
        names = [f"{made.tasks[task].label}: {reason}" for task, reason in failed.items()]
        names += [f"{planned.order.label()}: {planned.reason.splitlines()[0]}" for planned in missing]
        raise RunFailed("\n  - ".join([f"{len(names)} stages or cells failed; the others are done", *names]))


@app.command("status")
def status(
    file: FileArgument,
    follow: Annotated[bool, typer.Option("--follow", help="go on looking until nothing runs or waits")] = False,
    store: output.StoreOption = None,
    as_json: output.JsonOption = False,
) -> None:
    """Look at a grid that runs in another terminal, or see where it stopped."""
    import time

    from mae_bench.grid.file import load_grid
    from mae_bench.grid.journal import Journal

    grid = load_grid(file)
    journal = Journal(output.open_store(store), grid)
    states = journal.states()
    if not states:
        raise UsageError(f"{file}: this grid has not been run in this store; `mae-bench grid run {file}` does")
    with output.reporting() as reporter:
        told: dict[str, str] = {}
        while follow and any(task["state"] in ("running", "waiting") for task in states.values()):
            for key, task in states.items():
                if told.get(key, "waiting") != task["state"]:
                    reporter.note(f"{task['label']}: {task['state']}")
                told[key] = task["state"]
            time.sleep(LOOK_EVERY)
            states = journal.states()
    counts = Counter(task["state"] for task in states.values())
    document = {
        "title": grid.title,
        "counts": dict(counts),
        "tasks": [{"id": key} | task for key, task in states.items()],
    }
    rows = [
        (task["state"], task["label"], "" if task["seconds"] is None else f"{task['seconds']:.0f}", task["reason"])
        for task in states.values()
    ]
    title = f"{grid.title}: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    output.show(document, as_json, lambda: output.make_table(title, ["state", "stage", "s", "reason"], rows))


def parse_data(pairs: list[str]) -> dict[str, Path]:
    """`--data name=folder` pairs."""
    found = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not equals or not name or not folder:
            raise UsageError(f"--data {pair}: expected NAME=DIR, such as brats=Task01_BrainTumour")
        found[name] = Path(folder).absolute()
    return found


def _document(plan: Plan, outcomes: Any = None) -> dict[str, Any]:
    cells = []
    for planned in plan.cells:
        state: str = planned.state
        reason = planned.reason
        outcome = None if outcomes is None else outcomes.get(f"cell:{planned.key}")
        if outcome is not None:
            state, reason = ("failed" if outcome.status == "failed" else "done"), outcome.reason
        cells.append(
            planned.order.model_dump(mode="json")
            | {"label": planned.order.label(), "state": state, "reason": reason, "key": planned.key}
            | {"encoder": planned.encoder.partition(":")[2]}
        )
    tasks = [
        {"id": task.id, "label": task.label, "needs": task.needs, "cells": len(task.cells), "done": task.done}
        for task in plan.tasks.values()
    ]
    for task in tasks:
        if outcomes is not None and task["id"] in outcomes:
            task["done"] = outcomes[task["id"]].status in ("done", "found")
    return {"cells": cells, "tasks": tasks}


def _plan_table(title: str, plan: Plan, document: dict[str, Any]) -> Any:
    seconds = {task["id"]: task.get("seconds") for task in document["tasks"]}
    rows = []
    for cell in document["cells"]:
        encoder = f"encoder:{cell['encoder']}"
        shared = f"{cell['encoder'][:8]} x{len(plan.tasks[encoder].cells)}" if encoder in plan.tasks else ""
        costs = [seconds.get(encoder), seconds.get(f"cell:{cell['key']}")]
        told = " + ".join(f"{cost:.0f}" for cost in costs if cost is not None)
        rows.append((cell["label"], cell["state"], cell["key"][:8], shared, told, cell["reason"]))
    counts = Counter(cell["state"] for cell in document["cells"])
    below = []
    if document.get("predicted", {}).get("seconds") is not None:
        predicted = document["predicted"]
        below = [
            f"predicted for what is to do: {predicted['seconds'] / 60:.1f} minutes one after the other, "
            f"{predicted['gpu_hours']:g} GPU-hours, {predicted['memory_mb']:.0f} MB; stages that cells share count once"
        ]
        if unknown := sum("reason" in task for task in document["tasks"]):
            below.append(f"without {unknown} stages that cannot be run here")
    return output.make_table(
        f"{title}: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items())),
        ["cell", "state", "key", "encoder", "s", "reason"],
        rows,
        below=below,
    )
