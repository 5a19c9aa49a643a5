"""The layouts brain tumour data comes in."""

import re
from dataclasses import replace
from pathlib import Path

from mae_bench.data import decathlon
from mae_bench.errors import InputError
from mae_bench.interfaces import Layout, RawCase
from mae_bench_plugins.datasets.brats import CHANNELS

# Folder name, then file suffix per channel in the order of CHANNELS, then of the label; and the label values.
CHALLENGES = {
    "BraTS 2020": (
        re.compile(r"(BraTS20_Training_\d+)"),
        ("_flair", "_t1", "_t1ce", "_t2"),
        "_seg",
        {1: "necrotic non-enhancing tumour", 2: "edema", 4: "enhancing tumour"},
    ),
    "BraTS 2021": (
        re.compile(r"(BraTS2021_\d+)"),
        ("_flair", "_t1", "_t1ce", "_t2"),
        "_seg",
        {1: "necrotic non-enhancing tumour", 2: "edema", 4: "enhancing tumour"},
    ),
    "BraTS 2023": (
        re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d+"),
        ("-t2f", "-t1n", "-t1c", "-t2w"),
        "-seg",
        {1: "necrotic non-enhancing tumour", 2: "edema", 3: "enhancing tumour"},
    ),
}


def scan(root: Path) -> Layout:
    """List the cases of whichever layout is there.

    Raises:
        InputError: none is, or dataset.json is of another task.
    """
    if (root / "dataset.json").exists():
        layout = decathlon.scan(root)
        if len(layout.channels) != len(CHANNELS):
            raise InputError(
                f"{root / 'dataset.json'}: {len(layout.channels)} channels {list(layout.channels)}, "
                f"Task01_BrainTumour has {len(CHANNELS)}",
                "for another task of this layout: --dataset msd",
            )
        parts(layout)
        return replace(layout, channels=CHANNELS)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    for pattern, suffixes, label, labels in CHALLENGES.values():
        folders = sorted(path for path in root.iterdir() if path.is_dir() and pattern.fullmatch(path.name))
        if folders:
            return _challenge(folders, pattern, suffixes, label, labels)
    raise InputError(
        f"{root}: neither dataset.json (MSD Task01) nor folders named BraTS2021_*, BraTS20_Training_* or BraTS-*-*",
        "`mae-bench data status brats` says where to get the data and how it must lie",
    )


def _challenge(
    folders: list[Path], pattern: re.Pattern[str], suffixes: tuple[str, ...], label: str, labels: dict[int, str]
) -> Layout:
    cases, problems = [], {}
    for folder in folders:
        name = folder.name
        files = [folder / f"{name}{suffix}" for suffix in (*suffixes, label)]
        found = [next((p for p in (Path(f"{f}.nii.gz"), Path(f"{f}.nii")) if p.is_file()), None) for f in files]
        missing = [f"{file}.nii.gz" for file, path in zip(files, found, strict=True) if path is None]
        if missing:
            problems[name] = f"{name}: missing {' and '.join(missing)}"
            continue
        *images, truth = (path.relative_to(folder.parent) for path in found if path is not None)
        match = pattern.fullmatch(name)
        assert match is not None
        cases.append(RawCase(name, match.group(1), tuple(images), truth))
    return Layout(folders[0].parent, tuple(cases), CHANNELS, labels, problems)


def parts(layout: Layout) -> tuple[int, int, int]:
    """Label values of edema, non-enhancing core and enhancing tumour, by name.

    Raises:
        InputError: dataset.json does not name the three parts.
    """
    found = {}
    for value, name in layout.labels.items():
        text = name.lower()
        if "edema" in text or "oedema" in text:
            found["edema"] = value
        elif "non-enhancing" in text or "non enhancing" in text or "necrotic" in text:
            found["core"] = value
        elif "enhancing" in text:
            found["enhancing"] = value
    if len(found) != 3:
        raise InputError(
            f"dataset.json: labels {layout.labels} do not name edema, non-enhancing tumour and enhancing tumour",
            "for another task of this layout: --dataset msd",
        )
    return found["edema"], found["core"], found["enhancing"]
