"""Executors that come with mae-bench; a third-party one is a plugin with the same hook."""

from mae_bench import hookimpl
from mae_bench.executors.inline import InlineExecutor
from mae_bench.executors.ray import RayExecutor


@hookimpl
def mae_bench_executors() -> list[InlineExecutor | RayExecutor]:
    """In this process, and on Ray."""
    return [InlineExecutor(), RayExecutor()]
