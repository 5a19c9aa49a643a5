"""Prepared cases: memory-mapped arrays, so that reading a crop touches only the pages it lies on."""

from pathlib import Path
from typing import Any, NamedTuple

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
    affine: tuple[tuple[float, ...], ...]
    native_shape: tuple[int, ...]
    native_spacing: tuple[float, ...]
    start: tuple[int, ...]
    cropped: tuple[int, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    labelled: bool
    points: dict[str, tuple[int, int]]
    findings: tuple[float, ...] = ()


class Crop(NamedTuple):
    """image: (C, *roi) float32. label: (*roi) uint8, the file's own label values."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None


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

    def crop(self, centre: tuple[int, ...], roi: tuple[int, ...], *, with_label: bool) -> Crop:
        """The box of size `roi` around `centre`, moved inside the image; zeros where the image is smaller."""
        start = [
            min(max(point - size // 2, 0), max(whole - size, 0))
            for point, size, whole in zip(centre, roi, self.facts.shape, strict=True)
        ]
        box = tuple(
            slice(begin, min(begin + size, whole))
            for begin, size, whole in zip(start, roi, self.facts.shape, strict=True)
        )
        image = self.image()
        label = self.label() if with_label else None
        if any(whole < size for size, whole in zip(roi, self.facts.shape, strict=True)):
            inside = tuple(slice(0, part.stop - part.start) for part in box)
            padded = np.zeros((len(image), *roi), np.float32)
            padded[(slice(None), *inside)] = image[(slice(None), *box)]
            labels = None
            if label is not None:
                labels = np.zeros(roi, np.uint8)
                labels[inside] = label[box]
            return Crop(padded, labels)
        return Crop(image[(slice(None), *box)].astype(np.float32), None if label is None else np.asarray(label[box]))


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
