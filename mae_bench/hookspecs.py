"""Every place where a plugin can join, on one screen.

A distribution declares an entry point in the group `mae_bench`; the module it names implements any of these hooks
with `mae_bench.hookimpl`. Hooks return objects that carry their own name, so one module may bring several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mae_bench.grid.executor import Executor
    from mae_bench.interfaces import Backbone, Dataset, Head, Pretraining
    from mae_bench.record import ResultRecord

PROJECT = "mae_bench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mae_bench_datasets() -> Sequence[Dataset]:
    """Data sets this plugin brings."""
    raise AssertionError


@hookspec
def mae_bench_backbones() -> Sequence[Backbone]:
    """Backbones this plugin brings."""
    raise AssertionError


@hookspec
def mae_bench_pretrainings() -> Sequence[Pretraining]:
    """Pre-training methods this plugin brings."""
    raise AssertionError


@hookspec
def mae_bench_heads() -> Sequence[Head]:
    """Heads this plugin brings."""
    raise AssertionError


@hookspec(firstresult=True)
def mae_bench_pretrain(job: Any) -> Callable[[], dict[str, Any]] | None:
    """Offer to run an `engine.pretrain.Job`; the first answer wins, and without one the local loop runs it.

    The answer trains the job's objective and returns what `job.finish(history)` returns.
    """


@hookspec(firstresult=True)
def mae_bench_finetune(job: Any) -> Callable[[], dict[str, Any]] | None:
    """As `mae_bench_pretrain`, for an `engine.finetune.Job`."""


@hookspec
def mae_bench_executors() -> Sequence[Executor]:
    """Executors of grids this plugin brings."""
    raise AssertionError


@hookspec
def mae_bench_encoded(key: str, facts: dict[str, Any]) -> None:
    """Notice that a pre-trained encoder was made: its key, and the facts of its stage."""


@hookspec
def mae_bench_recorded(record: ResultRecord) -> None:
    """Notice that a record was written."""
