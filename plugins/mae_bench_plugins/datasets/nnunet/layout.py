"""Which files make a case: imagesTr/CASE_0000.ext and labelsTr/CASE.ext, or as the field `dataset` names them."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout, RawCase
from mae_bench_plugins.datasets.nnunet.description import FILE, Description, read_description

CHANNEL = re.compile(r"(.+)_(\d{4})")
COLOURS = 3  # a .png of three channels may hold them all in one file


def scan(root: Path, ndim: int) -> Layout:
    """List the training cases.

    Raises:
        UsageError: images with another number of axes than `ndim`.
        InputError: no valid dataset.json, or no imagesTr or labelsTr. Faults of cases are in `Layout.problems`.
    """
    found = read_description(root)
    axes = 2 if found.ending == ".png" else 3
    if axes != ndim:
        crop = ", ".join(["32"] * axes)
        raise UsageError(
            f"{root / FILE}: {found.ending} files have {axes} axes: add --ndim {axes}, and a crop to suit, "
            f"for example --set recipe.roi=[{crop}]"
        )
    cases: dict[str, RawCase] = {}
    problems: dict[str, str] = {}
    files = _in_folders(root, found, problems) if found.listed is None else _listed(root, found.listed, problems)
    for case, (images, label) in sorted(files.items()):
        wrong = _wrong(root, found, images, label)
        if wrong or label is None:
            problems[case] = f"{case}: " + "; ".join(wrong)
        else:
            cases[case] = RawCase(case, case, images, label)
    total = len(files)
    if total != found.cases:
        problems["numTraining"] = f"{root / FILE}: numTraining is {found.cases}, {total} cases are there"
    return Layout(root, tuple(cases.values()), found.channels, found.labels, problems)


Files = dict[str, tuple[tuple[Path, ...], Path | None]]


def _in_folders(root: Path, found: Description, problems: dict[str, str]) -> Files:
    """Files by case, relative to `root`, by their names."""
    images, labels = (_names(root, folder, found.ending) for folder in ("imagesTr", "labelsTr"))
    channels: dict[str, list[Path]] = {}
    for stem, path in images.items():
        match = CHANNEL.fullmatch(stem)
        if match is None:
            problems[stem] = f"{path}: the name does not end in the channel's number, as {stem}_0000{found.ending}"
        else:
            channels.setdefault(match[1], []).append(path)
    return {case: (tuple(channels.get(case, ())), labels.get(case)) for case in sorted(channels.keys() | labels.keys())}


def _names(root: Path, folder: str, ending: str) -> dict[str, Path]:
    try:
        names = sorted(path.name for path in (root / folder).iterdir())
    except OSError as error:
        raise InputError(f"{root / folder}: {error.strerror}", "nnU-Net v2 wants imagesTr and labelsTr") from error
    return {
        name.removesuffix(ending): Path(folder, name)
        for name in names
        if name.endswith(ending) and not name.startswith(".")
    }


def _listed(root: Path, listed: dict[str, Any], problems: dict[str, str]) -> Files:
    """Files by case, as the field `dataset` names them, relative to `root`."""
    files: Files = {}
    for case, entry in listed.items():
        field = f"{root / FILE}: dataset: {case}"
        if not isinstance(entry, dict) or not isinstance(entry.get("images"), list) or "label" not in entry:
            problems[case] = f"{field}: must be an object with images (a list) and label"
            continue
        names = [*entry["images"], entry["label"]]
        if odd := [name for name in names if not isinstance(name, str) or "\0" in name or ".." in name.split("/")]:
            problems[case] = f"{field}: {odd[0]!r} is not a path inside the data directory"
            continue
        *images, label = (Path(PurePosixPath(name)) for name in names)
        files[case] = (tuple(images), label)
    return files


def _wrong(root: Path, found: Description, images: tuple[Path, ...], label: Path | None) -> list[str]:
    """What makes a case unusable, without reading its files."""
    wrong = [] if label is not None else [f"missing its label in labelsTr ({found.ending})"]
    for path in (*images, *([] if label is None else [label])):
        if not path.name.endswith(found.ending):
            wrong.append(f"{path}: does not end in file_ending {found.ending}")
        elif path.is_absolute() or not _resolves_inside(root, path):
            wrong.append(f"{path}: leaves the data directory")
        elif not (root / path).is_file():
            wrong.append(f"missing {root / path}")
    together = found.ending == ".png" and len(found.channels) == COLOURS and len(images) == 1
    if not together and len(images) != len(found.channels):
        wrong.append(f"{len(images)} image files, {len(found.channels)} channels ({', '.join(found.channels)})")
    if found.listed is None:
        wrong += [
            f"{path}: channel {number:04d} expected here"
            for number, path in enumerate(images)
            if not path.name.endswith(f"_{number:04d}{found.ending}")
        ]
    return wrong


def _resolves_inside(root: Path, path: Path) -> bool:
    try:
        return (root / path).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # endless links, names too long
        return False
