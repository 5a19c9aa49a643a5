"""Prepared cases: memory-mapped arrays, so that reading a crop touches only the pages it lies on."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mae_bench.values import Value

POINTS = 4096  # voxels remembered per label value, to centre crops on without scanning the label


class CaseFacts(Value):
    """What is known of a prepared case without opening its arrays.

    native_shape and native_spacing are of the whole image in RAS order; `start` and `cropped` say which part of it was
    prepared. folder: address of its arrays. points: for each label value (and "foreground") the rows of points.npy
    that belong to it.
    """

    id: str
    folder: str
    subject: str
    sha256: str
    affine: tuple[tuple[float, ...], ...] | None
    native_shape: tuple[int, ...]
    native_spacing: tuple[float, ...]
    start: tuple[int, ...]
    cropped: tuple[int, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    labelled: bool
    points: dict[str, tuple[int, int]]
    findings: tuple[float, ...] = ()


class PreparedCase:
    """One case on disk."""

    def __init__(self, folder: Path, facts: CaseFacts) -> None:
        self.folder = folder
        self.facts = facts

    def image(self) -> NDArray[np.float16]:
        """(C, *shape), memory-mapped."""
        return np.load(self.folder / "image.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def label(self) -> NDArray[np.uint8]:
        """(*shape), memory-mapped."""
        return np.load(self.folder / "label.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def point(self, kind: str, rng: np.random.Generator) -> tuple[int, ...] | None:
        """A random voxel of `kind` ("foreground" or a label value), or None when the case has none."""
        first, last = self.facts.points.get(kind, (0, 0))
        if first == last:
            return None
        points = np.load(self.folder / "points.npy", mmap_mode="r")
        return tuple(int(x) for x in points[rng.integers(first, last)])


def box_around(centre: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The box of `size` around `centre`, moved inside `shape`; cut where `shape` is smaller."""
    start = [
        min(max(point - part // 2, 0), max(whole - part, 0))
        for point, part, whole in zip(centre, size, shape, strict=True)
    ]
    return tuple(slice(begin, min(begin + part, whole)) for begin, part, whole in zip(start, size, shape, strict=True))


class Prepared:
    """A finished set of cases, what was refused, and the fingerprint of the contents.

    `folder` is that of the set; the arrays lie beside it in `cases/`, shared by all sets that hold the same case.
    """

    def __init__(self, folder: Path, stage: dict[str, Any]) -> None:
        self.folder = folder
        self.fingerprint: str = stage["fingerprint"]
        self.problems: dict[str, str] = stage["problems"]
        self.facts = {case["id"]: CaseFacts.model_validate(case) for case in stage["cases"]}

    def case(self, case: str) -> PreparedCase:
        """One case by id."""
        facts = self.facts[case]
        return PreparedCase(self.folder.parent / "cases" / facts.folder, facts)
