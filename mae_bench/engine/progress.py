"""How a long run tells what it is doing, without knowing who listens."""

from typing import Protocol


class Reporter(Protocol):
    """Receives progress. `start` opens a stage of `total` units; `advance` says how many are done."""

    def start(self, stage: str, total: int) -> None: ...
    def advance(self, done: int, **numbers: float) -> None: ...
    def note(self, text: str) -> None: ...


class Silent:
    """Tells nobody."""

    def start(self, stage: str, total: int) -> None:
        """Ignore."""

    def advance(self, done: int, **numbers: float) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
