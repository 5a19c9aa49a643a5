"""`inline`: this process, one stage after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mae_bench.values import Options

if TYPE_CHECKING:
    from mae_bench.grid.work import Outcome, Work


class InlineOptions(Options):
    """`inline` has no options."""


class InlineExecutor:
    """Runs everything here; uses the GPU if there is one, or all of an accelerate launch."""

    name = "inline"
    summary = "this process, one stage after the other"
    Options = InlineOptions

    @contextmanager
    def open(self, options: InlineOptions, reporter: Any) -> Iterator["InlinePool"]:
        """A pool of one place."""
        yield InlinePool(reporter)


class InlinePool:
    """One place: work is done when its outcome is waited for."""

    slots = 1

    def __init__(self, reporter: Any) -> None:
        from mae_bench.grid.work import Worker

        self.worker = Worker(reporter)
        self.pending: list[tuple[str, Work]] = []

    def submit(self, identity: str, work: "Work") -> None:
        """Remember the work."""
        self.pending.append((identity, work))

    def wait(self) -> tuple[str, "Outcome"]:
        """Do it."""
        identity, work = self.pending.pop(0)
        return identity, self.worker.perform(work)

    def give_up(self, work: "Work", reason: str) -> None:
        """Leave a failed record."""
        self.worker.give_up(work, reason)
