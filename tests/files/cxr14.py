"""Writes small data sets in the layout of ChestX-ray14, by Pillow and the csv module."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMNS = {
    # As the two tables begin; the commas inside the last names make two columns of each.
    "Data_Entry_2017.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
    "Data_Entry_2017_v2020.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,"
    "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
}


@dataclass(frozen=True)
class Film:
    """One row of the table."""

    patient: int
    follow_up: int = 0
    labels: str = "No Finding"
    test: bool = False

    @property
    def name(self) -> str:
        """As the NIH names files."""
        return f"{self.patient:08d}_{self.follow_up:03d}.png"


def films(patients: int, *, images: int = 2, tested: int = 4) -> list[Film]:
    """`images` of each patient; every `tested`-th patient is on the test list."""
    labels = ("No Finding", "Effusion", "Cardiomegaly|Effusion", "Hernia")
    return [
        Film(patient, follow_up, labels[(patient + follow_up) % 4], patient % tested == 0)
        for patient in range(1, patients + 1)
        for follow_up in range(images)
    ]


def draw(film: Film, size: tuple[int, int] = (40, 36)) -> NDArray[np.uint8]:
    """Grey pixels that belong to this film alone."""
    rng = np.random.default_rng([film.patient, film.follow_up])
    return rng.integers(0, 256, size, dtype=np.uint8)


def write_table(root: Path, shown: Sequence[Film], table: str = "Data_Entry_2017.csv") -> None:
    """Write the table alone."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / table).open("w", newline="") as file:
        file.write(COLUMNS[table] + "\n")
        rows = csv.writer(file)
        for film in shown:
            rows.writerow([film.name, film.labels, film.follow_up, film.patient, 58, "M", "PA", 2682, 2749, 0.1, 0.1])


def write_lists(root: Path, shown: Sequence[Film]) -> None:
    """Write both lists, one name a line."""
    for name, test in (("train_val_list.txt", False), ("test_list.txt", True)):
        (root / name).write_text("\n".join(film.name for film in shown if film.test == test))


def write_image(path: Path, pixels: NDArray[np.uint8], mode: str | None = None) -> None:
    """Write one PNG, of another mode if asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def write_cxr14(
    root: Path, shown: Sequence[Film], *, table: str = "Data_Entry_2017.csv", folders: Sequence[str] = ("images",)
) -> None:
    """Write table, lists and images, the images spread over `folders` in turn."""
    write_table(root, shown, table)
    write_lists(root, shown)
    for number, film in enumerate(shown):
        write_image(root / folders[number % len(folders)] / film.name, draw(film))
