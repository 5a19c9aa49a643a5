"""What commands print: one JSON document, or tables; progress goes to stderr."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mae_bench.store import Store

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="where runs are kept [default: $MAE_BENCH_STORE or ./mae-bench-store]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]


def open_store(path: Path | None) -> Store:
    """The store named by --store, else the default one."""
    return Store.default() if path is None else Store(path)


def show(document: Any, as_json: bool, table: Callable[[], RenderableType]) -> None:
    """Print `document` as JSON, or the table that shows the same."""
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        Console().print(table(), crop=False)


def make_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    once: Collection[str] = (),
    below: Sequence[str] = (),
) -> RenderableType:
    """A table of texts, without columns that are empty; without rows, its title alone.

    Args:
        once: columns that go into the title where they say the same in every row.
        below: lines below the table; they are not broken, since they may be paths.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    values = dict(zip(columns, zip(*texts, strict=True), strict=True)) if texts else {}
    values = {column: found for column, found in values.items() if any(found)}
    shared = {column: found[0] for column, found in values.items() if column in once and len(set(found)) == 1}
    table = Table()
    kept = {column: found for column, found in values.items() if column not in shared}
    for column in kept:
        table.add_column(column, overflow="fold")
    for row in zip(*kept.values(), strict=True):
        table.add_row(*map(Text, row))
    title = ", ".join([title, *(f"{column} {value}" for column, value in shared.items())])
    lines = [Text(line, no_wrap=True, overflow="ignore") for line in below]
    return Group(Text(title, style="bold"), *([table] if texts else []), *lines)


class PlainReporter:
    """Progress as lines, for logs: at most one every five seconds, and the end of each stage."""

    def __init__(self) -> None:
        self.stage, self.total, self.began, self.told = "", 0, 0.0, 0.0

    def start(self, stage: str, total: int) -> None:
        """Open a stage."""
        self.stage, self.total, self.began = stage, total, time.monotonic()
        self.told = self.began

    def advance(self, done: int, **numbers: float) -> None:
        """Say how far the stage is."""
        now = time.monotonic()
        if now - self.told < 5 and done < self.total:
            return
        self.told = now
        parts = [f"{self.stage} {done}/{self.total}", f"{now - self.began:.0f} s"]
        parts += [f"{name} {value:.4f}" for name, value in numbers.items()]
        print(", ".join(parts), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Say something once."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to put back."""


class BarReporter:
    """Progress as bars with rate, loss and time left, for terminals."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.progress.start()
        self.task: Any = None
        self.began, self.first = 0.0, 0

    def start(self, stage: str, total: int) -> None:
        """Open a bar."""
        self.task = self.progress.add_task(stage, total=total, numbers="")
        self.began, self.first = time.monotonic(), -1

    def advance(self, done: int, **numbers: float) -> None:
        """Move the bar."""
        if self.first < 0:  # a continued stage starts in the middle
            self.first, self.began = done, time.monotonic()
        rate = (done - self.first) / max(time.monotonic() - self.began, 1e-9)
        parts = [f"{rate:.1f}/s", *(f"{name} {value:.4f}" for name, value in numbers.items())]
        self.progress.update(self.task, completed=done, numbers=" ".join(parts))

    def note(self, text: str) -> None:
        """Print above the bars."""
        self.progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.progress.stop()


@contextlib.contextmanager
def reporting() -> Iterator[PlainReporter | BarReporter]:
    """Progress on stderr while the block runs: bars on a terminal, else lines."""
    reporter = BarReporter() if sys.stderr.isatty() else PlainReporter()
    try:
        yield reporter
    finally:
        reporter.close()


def stage_progress(reporter: Any) -> Callable[[str], Callable[[int, int], None]]:
    """Progress of the data stages, told to a reporter: the stage opens at its first case."""

    def open_stage(name: str) -> Callable[[int, int], None]:
        def advance(done: int, total: int) -> None:
            if done == 1:
                reporter.start(name, total)
            reporter.advance(done)

        return advance

    return open_stage
