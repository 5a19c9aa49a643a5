"""Writes a new plugin: an installable distribution with a card, a small working implementation and a passing test."""

import importlib.util
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from mae_bench.errors import InputError, UsageError
from mae_bench.registry import Registry
from mae_bench.store import write_bytes

KINDS = {"dataset": "dataset", "backbone": "backbone", "pretraining": "pretrain", "head": "head"}
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SUFFIX = ".txt"  # of every template, so that no tool takes one for a source file


def write(kind: str, name: str, folder: Path, registry: Registry) -> list[Path]:
    """Write the distribution `mae-bench-NAME` into `folder`.

    Args:
        kind: dataset, backbone, pretraining or head.
        name: of the plugin: lower-case words, joined by hyphens.

    Returns:
        The files, relative to `folder`.

    Raises:
        UsageError: no such kind, a name that is not one, or one that is taken (says by whom).
        InputError: the folder is there and not empty.
    """
    if kind not in KINDS:
        raise UsageError(f"no kind of plugin {kind!r}; there are: {', '.join(KINDS)}")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a plugin: lower-case letters and digits, words joined by hyphens")
    if taken := registry.found.get((KINDS[kind], name)):
        raise UsageError(f"{kind} {name!r} is there already, from {taken[0].dist} {taken[0].version}")
    package = f"mae_bench_{name.replace('-', '_')}"
    if importlib.util.find_spec(package) is not None:
        raise UsageError(f"{name!r}: a package {package} is installed already; choose another name")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: there already, and not an empty folder", "give a folder that is not there yet")
    values = {
        "kind": kind,
        "group": KINDS[kind],
        "name": name,
        "package": package,
        "module": name.replace("-", "_"),
        "cls": "".join(word.capitalize() for word in name.split("-")),
    }
    written = {}
    for part in ("common", kind):
        for place, text in _templates(files(__name__) / "templates" / part):
            written[Path(Template(place).substitute(values))] = Template(text).substitute(values)
    for path, text in sorted(written.items()):
        write_bytes(folder / path, text.encode())
    return sorted(written)


def _templates(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    """Paths without SUFFIX and texts of all templates under a folder of the package."""
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            found.append((prefix + entry.name.removesuffix(SUFFIX), entry.read_text("utf-8")))
    return found
