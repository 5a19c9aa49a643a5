"""Checks of data sets: card, recipes, and everything from the files of the stand-in to prepared cases."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mae_bench.data.checks import faults
from mae_bench.data.crops import Crops
from mae_bench.data.prepare import SAFE_ID
from mae_bench.data.source import open_data
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import DatasetCard, Layout
from mae_bench.recipe import load_recipe, recipe_names
from mae_bench.resolve import Request, resolve
from mae_bench.store import Store
from mae_bench.task import Protocol, Task
from mae_bench.testing.contract import DoesNotApply, Subject, make_checks, require

READ = 8  # cases that are read


def card(subject: Subject) -> None:
    """The card says title, licence, citation, how to obtain the data and how they must lie."""
    about = subject.plugin.card
    require(isinstance(about, DatasetCard), f"card is {about!r}, not a DatasetCard")
    empty = [name for name, text in about if not text.strip()]
    require(not empty, f"card: {', '.join(empty)} is empty")


def recipes(subject: Subject) -> None:
    """There are recipes `smoke`, `demo` if there is a stand-in, `paper` unless the data are built in; all resolve."""
    dataset = subject.plugin
    there = recipe_names(dataset.recipes)
    wanted = {"smoke": True, "demo": dataset.stand_in or dataset.builtin, "paper": not dataset.builtin}
    missing = [name for name, asked in wanted.items() if asked and name not in there]
    require(not missing, f"{dataset.recipes}: no {', '.join(f'{name}.toml' for name in missing)}")
    settings = {f"dataset.{name}": str(value) for name, value in subject.given.items()}
    for name in there:
        load_recipe(dataset.recipes, name)
        try:
            resolve(Request(dataset.name, "scratch", recipe=name, settings=settings), subject.registry)
        except UsageError as error:
            require(False, f"recipe {name}: {error}")


def stand_in(subject: Subject) -> None:
    """The stand-in is written with the same bytes every time, or refused with a reason when there is none."""
    if not subject.plugin.stand_in:
        try:
            subject.plugin.write_demo(subject.options, _fresh(subject), lambda done, total: None)
        except UsageError:
            return
        require(False, "stand_in is False, but write_demo does not raise UsageError")
    first, second = _stand_in(subject), _fresh(subject)
    subject.plugin.write_demo(subject.options, second, lambda done, total: None)
    one, other = _bytes_of(first), _bytes_of(second)
    require(bool(one), "the stand-in has no files")
    require(one.keys() == other.keys(), f"files differ: {sorted(one.keys() ^ other.keys())[:3]}")
    differing = [name for name, digest in one.items() if other[name] != digest]
    require(not differing, f"other bytes the second time: {', '.join(differing[:3])}")


def _fresh(subject: Subject) -> Path:
    subject.folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=subject.folder))


def _bytes_of(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _stand_in(subject: Subject) -> Path:
    """The stand-in, written once for all checks of a subject."""
    folder = subject.folder / "stand-in"
    if not folder.is_dir():
        made = _fresh(subject)
        subject.plugin.write_demo(subject.options, made, lambda done, total: None)
        made.rename(folder)
    return folder


def _opened(subject: Subject) -> tuple[Path, Layout]:
    """The folder of files that checks read, and what `scan` finds there. Raises DoesNotApply when there is none."""
    if subject.data is None and not subject.plugin.stand_in:
        raise DoesNotApply("has no stand-in: give --data DIR")
    root = subject.data or _stand_in(subject)
    return root, subject.plugin.scan(subject.options, root)


def _rules(subject: Subject, layout: Layout) -> dict[str, tuple[Protocol, Task]]:
    """Protocols and tasks by name. One that is not the first may refuse these files."""
    found = {}
    for number, (name, make) in enumerate(subject.plugin.protocols(subject.options, layout).items()):
        try:
            protocol = make()
            found[name] = (protocol, subject.plugin.task(subject.options, layout, protocol))
        except InputError:
            require(number > 0, f"the default protocol {name} refuses the files")
    require(bool(found), "there is no protocol")
    return found


def scan(subject: Subject) -> None:
    """`scan` lists cases with unique ids, whose files are there, inside the folder."""
    root, layout = _opened(subject)
    require(bool(layout.cases), f"no cases in {root}")
    require(not layout.problems, f"problems: {list(layout.problems.items())[:1]}")
    require(bool(layout.channels), "no channels")
    ids = [case.id for case in layout.cases]
    require(len(set(ids)) == len(ids), "two cases have one id")
    for case in layout.cases:
        require(SAFE_ID.fullmatch(case.id) is not None, f"case {case.id!r}: the id cannot name a folder")
        require(bool(case.subject), f"case {case.id}: no subject")
        for path in (*case.images, *([case.label] if case.label else [])):
            whole = (root / path).resolve()
            inside = not path.is_absolute() and whole.is_relative_to(root.resolve())
            require(inside and whole.is_file(), f"case {case.id}: {path} is no file in the folder")


def read(subject: Subject) -> None:
    """`read` gives images without faults, the same every time."""
    root, layout = _opened(subject)
    _, task = next(iter(_rules(subject, layout).values()))
    for case in layout.cases[:READ]:
        raw = subject.plugin.read(case, root)
        found = faults(raw, case, task)
        require(not found, f"case {case.id}: {'; '.join(found[:2])}")
        again = subject.plugin.read(case, root)
        require(len(raw.sha256) == 64 and raw.sha256 == again.sha256, f"case {case.id}: sha256 {raw.sha256!r}")
        require(bool((raw.image == again.image).all()), f"case {case.id}: another image the second time")
        require((raw.label is None) == (case.label is None), f"case {case.id}: label in the file list or in the answer")


def protocols(subject: Subject) -> None:
    """Every protocol has a task that the words announce, and sides that share no case and no subject."""
    _, layout = _opened(subject)
    words = subject.plugin.provides(subject.options)
    for name, (protocol, task) in _rules(subject, layout).items():
        require(protocol.name == name, f"protocol {name} calls itself {protocol.name}")
        announced = {task.kind, f"{task.ndim}d"} <= words
        require(announced, f"{name}: {task.ndim}-D {task.kind} is not among {sorted(words)}")
        require(task.channels == layout.channels, f"{name}: channels {task.channels}, the files have {layout.channels}")
        require(task.outputs > 0, f"{name}: nothing to predict")
        if task.kind != "segmentation":
            wrong = [case.id for case in layout.cases if len(case.findings) != len(task.findings)]
            require(not wrong, f"{name}: case {wrong[:1]} has not {len(task.findings)} findings")
        split = subject.plugin.split(layout.cases, protocol)
        _check_split(name, split, layout, protocol)


def _check_split(name: str, split: Any, layout: Layout, protocol: Protocol) -> None:
    subjects = {case.id: case.subject for case in layout.cases}
    sides = {side: set(getattr(split, side)) for side in ("train", "val", "test")}
    for side, ids in sides.items():
        require(bool(ids), f"{name}: {side} is empty")
        require(ids <= set(subjects), f"{name}: {side} has cases that are not in the files")
        require(len(ids) == len(getattr(split, side)), f"{name}: {side} has a case twice")
    require(set().union(*sides.values()) == set(subjects), f"{name}: some cases are on no side")
    pairs = [("train", "test"), ("train", "val"), ("val", "test")]
    if protocol.selection == "test":
        require(split.val == split.test, f"{name}: selection is on the test cases, but val does not repeat test")
        pairs = pairs[:2]
    for one, other in pairs:
        shared = {subjects[case] for case in sides[one]} & {subjects[case] for case in sides[other]}
        require(not shared, f"{name}: {one} and {other} share {sorted(shared)[:3]}")


def prepares(subject: Subject) -> None:
    """Its cases are prepared by the data path and give crops of the smoke recipe's size."""
    root, _ = _opened(subject)
    store = Store(subject.folder / "store")
    data = open_data(subject.plugin, subject.options, store, data=root, demo=False, protocol=None)
    roi = load_recipe(subject.plugin.recipes, "smoke").roi
    require(len(roi) == data.task.ndim, f"recipe smoke: a crop of {roi} for {data.task.ndim}-D images")
    dense = data.task.kind == "segmentation"
    batch = Crops(data.prepared, data.split.train, roi, 2, 1, seed=0, with_labels=dense, centred=not dense)(0)
    require(batch.images.shape == (2, len(data.task.channels), *roi), f"crops of shape {batch.images.shape}")
    require(bool(batch.images.any()), "crops are empty")


def wrong_folder(subject: Subject) -> None:
    """A folder that is not the layout is refused with InputError, naming it."""
    empty = _fresh(subject)
    try:
        layout = subject.plugin.scan(subject.options, empty)
    except InputError as error:
        require(str(empty) in str(error), f"refused without naming the folder: {error}")
    else:
        require(False, f"an empty folder is taken for the layout, with {len(layout.cases)} cases")


def missing_file(subject: Subject) -> None:
    """A case whose image is gone is refused with InputError, naming the file."""
    root, layout = _opened(subject)
    case = layout.cases[0]
    gone = replace(case, images=tuple(path.with_name(f"gone-{path.name}") for path in case.images))
    try:
        subject.plugin.read(gone, root)
    except InputError as error:
        require(gone.images[0].name in str(error), f"refused without naming the file: {error}")
    else:
        require(False, "an image that is not there is read all the same")


CHECKS = make_checks([card, recipes, stand_in, scan, read, protocols, prepares, wrong_folder, missing_file])
