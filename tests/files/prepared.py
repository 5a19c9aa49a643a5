"""Prepared cases for tests of what reads them."""

from pathlib import Path
from typing import Any

from mae_bench.data.prepare import prepare
from mae_bench.data.prepared import Prepared
from mae_bench.store import Store
from mae_bench_plugins.datasets.msd import MSD, MSDOptions
from tests.files.decathlon import plain_cases, write_msd


def prepare_msd(root: Path, store: Path, options: MSDOptions | None = None, **kwargs: Any) -> Prepared:
    """Prepare a task folder as `msd` would."""
    dataset, options = MSD(), options or MSDOptions()
    layout = dataset.scan(options, root)
    rules = dataset.protocols(options, layout)["clean-v1"]()
    task = dataset.task(options, layout, rules)
    return prepare(dataset, options, root, layout, task, rules.preprocessing, Store(store), **kwargs)


def write_and_prepare(folder: Path, count: int, shape: tuple[int, int, int]) -> Prepared:
    """Cases of two channels, `case_00` and on."""
    write_msd(folder / "task", plain_cases(count, shape=shape), channels=("A", "B"))
    return prepare_msd(folder / "task", folder / "store")
