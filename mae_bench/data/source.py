"""Where a data set's files come from: a folder the user names, or a stand-in written into the store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mae_bench import __version__
from mae_bench.data.prepare import Progress, prepare
from mae_bench.data.prepared import Prepared
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Dataset, Layout
from mae_bench.store import Store, writing_folder
from mae_bench.task import Protocol, Split, Task
from mae_bench.values import Options, digest


@dataclass(frozen=True)
class Data:
    """A data set opened under a protocol: prepared, with its task and split."""

    root: Path
    kind: Literal["demo", "real"]
    layout: Layout
    protocol: Protocol
    task: Task
    prepared: Prepared
    split: Split


def locate(
    dataset: Dataset, options: Options, store: Store, data: Path | None, demo: bool, progress: Progress
) -> tuple[Path, Literal["demo", "real"]]:
    """The folder to read, written first if it is the stand-in.

    Raises:
        UsageError: both --data and --demo.
        InputError: neither, and the data do not come with an installed package.
    """
    if data is not None and demo:
        raise UsageError("--data and --demo exclude each other")
    if demo and not dataset.stand_in:
        raise UsageError(f"{dataset.name} has no stand-in: give --data DIR, or try `--dataset brats --demo`")
    if data is not None:
        if not data.is_dir():
            raise InputError(f"{data}: no such folder", "--data must be the folder of the data set")
        return data, "real"
    if demo or dataset.builtin:
        return write_stand_in(dataset, options, store, progress), "demo"
    card = dataset.card
    hint = (
        f"get it: {card.obtain}\nlicence: {card.licence}\nthen: mae-bench run --dataset {dataset.name} --data DIR ..."
    )
    if dataset.stand_in:
        hint += f"\nor try the stand-in: mae-bench run --dataset {dataset.name} --demo ..."
    raise InputError(f"{dataset.name}: no data given", hint)


def write_stand_in(dataset: Dataset, options: Options, store: Store, progress: Progress) -> Path:
    """Write the stand-in once; it is there whole or not at all."""
    # The version, because another version may draw another stand-in.
    key = f"{dataset.name}-{digest([options.model_dump(mode='json'), __version__])}"
    folder = store.folder("demo", key)
    if not (folder / "files").is_dir():
        with store.claim("demo", key):
            if not (folder / "files").is_dir():
                with writing_folder(folder / "files") as temporary:
                    dataset.write_demo(options, temporary, progress)
    return folder / "files"


def choose_protocol(dataset: Dataset, options: Options, layout: Layout, name: str | None) -> Protocol:
    """The named protocol, or the data set's first.

    Raises:
        UsageError: no such protocol.
    """
    protocols = dataset.protocols(options, layout)
    name = name or next(iter(protocols))
    if name not in protocols:
        raise UsageError(f"{dataset.name} has no protocol {name!r}; there are: {', '.join(protocols)}")
    return protocols[name]()


def open_data(
    dataset: Dataset,
    options: Options,
    store: Store,
    *,
    data: Path | None,
    demo: bool,
    protocol: str | None,
    skip_bad: bool = False,
    stage: Callable[[str], Progress] = lambda name: lambda done, total: None,
) -> Data:
    """Find, check, prepare and split a data set.

    Args:
        stage: called with the name of a stage, gives what its progress is told to.
    """
    root, kind = locate(dataset, options, store, data, demo, stage("write stand-in"))
    layout = dataset.scan(options, root)
    rules = choose_protocol(dataset, options, layout, protocol)
    task = dataset.task(options, layout, rules)
    prepared = prepare(
        dataset, options, root, layout, task, rules.preprocessing, store, skip_bad=skip_bad, progress=stage("prepare")
    )
    usable: Any = tuple(case for case in layout.cases if case.id in prepared.facts)
    return Data(root, kind, layout, rules, task, prepared, dataset.split(usable, rules))
