"""A grid whose cells take seconds, and what tests ask of it."""

from pathlib import Path
from typing import Any

from mae_bench.grid.file import Grid
from mae_bench.grid.journal import Journal
from mae_bench.store import Store

DEFAULTS: dict[str, Any] = {
    "dataset": "mni152", "recipe": "smoke", "set": {"dataset.subjects": 6, "dataset.spacing": 6},
}  # fmt: skip


def tiny_grid(*sweeps: dict[str, Any], **settings: Any) -> Grid:
    defaults = {**DEFAULTS, "set": {**DEFAULTS["set"], **settings}}
    return Grid(title="Tiny", summary="for tests", defaults=defaults, sweep=sweeps)  # type: ignore[arg-type]


def write_grid(path: Path, sweeps: str, **settings: Any) -> Path:
    """The same as a file; sweeps in TOML."""
    lines = ['title = "Tiny"', 'summary = "for tests"', "[defaults]", 'dataset = "mni152"', 'recipe = "smoke"']
    lines += ["[defaults.set]", '"dataset.subjects" = 6', '"dataset.spacing" = 6']
    lines += [f'"{name}" = {value}' for name, value in settings.items()]
    path.write_text("\n".join([*lines, sweeps]))
    return path


def computed(store: Store, grid: Grid) -> dict[str, int]:
    """How often each stage was computed, by the journal."""
    counts: dict[str, int] = {}
    for event in Journal(store, grid).events():
        if event["event"] == "done":
            counts[event["task"]] = counts.get(event["task"], 0) + 1
    return counts
