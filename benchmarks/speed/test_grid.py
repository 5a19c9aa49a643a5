"""A grid of sixty small cells: what running them through `inline` adds to them, and what two places on Ray save.

`nox -s speed -- -k grid` prints both. One thread per stage in both, so that the ratio is that of the places.
"""

import time

import torch

from mae_bench.executors.inline import InlineExecutor
from mae_bench.executors.ray import RayExecutor, RayOptions
from mae_bench.grid.execution import Execution
from mae_bench.grid.file import Grid
from mae_bench.grid.journal import Journal
from mae_bench.grid.plan import make_plan
from mae_bench.registry import registry
from mae_bench.store import Store

GRID = Grid(
    title="Sixty cells",
    summary="for timing",
    defaults={"dataset": "mni152", "recipe": "smoke", "seed": list(range(15)),
              "set": {"dataset.subjects": 6, "dataset.spacing": 6, "pretrain.steps": 10, "finetune.steps": 10}},
    sweep=[{"pretrain": ["scratch", "mae"], "labels": [0.5, 1.0]}],
)  # fmt: skip


def run(store, executor, options):
    """Seconds of the whole run after planning, and the sum of its stages."""
    plan = make_plan(GRID, store, registry(), {})
    assert sum(task.work.stage == "cell" for task in plan.tasks.values()) == 60
    began = time.perf_counter()
    with executor.open(options, None) as pool:
        outcomes = Execution(plan, Journal(store, GRID), pool).run()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    return time.perf_counter() - began, sum(outcome.seconds for outcome in outcomes.values())


def test_grid(benchmark, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(Store(tmp_path / "warm"), InlineExecutor(), InlineExecutor.Options())
    inline, stages = run(Store(tmp_path / "inline"), InlineExecutor(), InlineExecutor.Options())
    torch.set_num_threads(threads)
    store = Store(tmp_path / "ray")
    ray, _ = benchmark.pedantic(lambda: run(store, RayExecutor(), RayOptions(slots=2)), rounds=1, iterations=1)
    benchmark.extra_info |= {"inline over its stages": inline / stages, "ray over inline": ray / inline}
    print(f"\n60 cells: inline takes {inline / stages:.3f} of the sum of its stages, {inline:.1f} s")
    print(f"60 cells: two places on Ray take {ray / inline:.3f} of that")
