"""What happened to a grid, one JSON line per event: appended by whoever runs it, read by whoever asks."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mae_bench.grid.file import Grid
from mae_bench.grid.plan import Plan
from mae_bench.processes import is_first_process
from mae_bench.store import Store
from mae_bench.values import digest


class Journal:
    """The events of one grid in one store. Each line is one write, so several runs may share the file.

    A grid is known by its cells: it stays the same when its title is put in better words.
    """

    def __init__(self, store: Store, grid: Grid) -> None:
        self.store = store
        self.path: Path = store.root / "grids" / _address(grid) / "journal.jsonl"

    def begin(self, plan: Plan, executor: str) -> None:
        """Say that a run began, with all its tasks."""
        tasks = {task.id: {"label": task.label, "cells": len(task.cells)} for task in plan.tasks.values()}
        host = {"host": socket.gethostname(), "pid": os.getpid()}
        self.write("run", tasks=tasks, executor=executor, **host)

    def write(self, event: str, **facts: Any) -> None:
        """Append one event; of the processes of one launch, the first writes."""
        if not is_first_process():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"at": round(time.time(), 3), "event": event} | facts, allow_nan=False) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def events(self) -> Iterator[dict[str, Any]]:
        """All events so far; a line that a dying process left torn is passed over."""
        if not self.path.is_file():
            return
        for line in self.path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue

    def states(self) -> dict[str, dict[str, Any]]:
        """The state of each task of all runs: waiting, running, interrupted, done, found or failed.

        One that was started and has not ended is running while somebody holds its claim, else interrupted.
        """
        found: dict[str, dict[str, Any]] = {}
        for event in self.events():
            if event["event"] == "run":
                for identity, facts in event["tasks"].items():
                    found.setdefault(identity, {"state": "waiting", "seconds": None, "reason": ""} | facts)
            elif event.get("task") in found:
                task = found[event["task"]]
                state = {"started": "running", "lost": "waiting"}.get(event["event"], event["event"])
                task |= {"state": state, "seconds": event.get("seconds"), "reason": event.get("reason", "")}
        for identity, task in found.items():
            if task["state"] == "running" and not self._held(identity):
                task["state"] = "interrupted"
        return found

    def _held(self, identity: str) -> bool:
        kind, _, key = identity.partition(":")
        return self.store.held({"encoder": "encoders", "cell": "models"}[kind], key)


def _address(grid: Grid) -> str:
    return digest([order.model_dump(mode="json") for order in grid.orders()])
