"""What an executor is: something that does pieces of work at some number of places at once."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from mae_bench.grid.work import Outcome, Work
from mae_bench.values import Options


class Pool(Protocol):
    """Places that work. At most `slots` pieces are handed in at a time."""

    @property
    def slots(self) -> int:
        """How many pieces can be worked on now; at least 1."""
        ...

    def submit(self, identity: str, work: Work) -> None:
        """Take a piece of work; returns at once or when it is done."""
        ...

    def wait(self) -> tuple[str, Outcome]:
        """The next piece that ended. One whose worker died ends as `lost`; the pool stays usable."""
        ...

    def give_up(self, work: Work, reason: str) -> None:
        """Leave a failed record of a cell that will not be tried (`grid.work.Worker.give_up`)."""
        ...


class Executor(Protocol):
    """A plugin that runs grids. Its card is light: `open` imports what it needs."""

    name: str
    summary: str
    Options: type[Options]

    def open(self, options: Any, reporter: Any) -> AbstractContextManager[Pool]: ...
