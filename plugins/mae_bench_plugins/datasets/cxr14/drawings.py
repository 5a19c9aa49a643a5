"""Drawn radiographs in the official layout: the stand-in of `cxr14`.

What makes it a question and not a threshold: build, breath, position, exposure, scatter and noise differ between
images; findings are faint or plain, several at a time, and hide behind ribs, heart and breasts.
"""

import csv
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mae_bench.store import write_bytes
from mae_bench_plugins.datasets.cxr14 import STAND_IN
from mae_bench_plugins.datasets.cxr14.pathology import draw_findings
from mae_bench_plugins.datasets.cxr14.table import LISTS, NORMAL, TABLES
from mae_bench_plugins.datasets.cxr14.thorax import Chest, Patient, draw_patient

# How many of a hundred patients have a finding. The order is that of the real ones, but rare ones are raised, so that
# few patients are enough to score them.
PREVALENCE = {
    "Infiltration": 22,
    "Effusion": 19,
    "Atelectasis": 18,
    "Nodule": 14,
    "Mass": 13,
    "Pneumothorax": 13,
    "Consolidation": 12,
    "Cardiomegaly": 12,
    "Pleural_Thickening": 10,
    "Emphysema": 10,
    "Edema": 9,
    "Fibrosis": 8,
    "Pneumonia": 7,
    "Hernia": 4,
}
HEALTHY = {"train_val": 0.45, "test": 0.2}  # share of patients without any; the real test list is sicker, too
SICK = 0.65  # share of patients that PREVALENCE is spread over
PERSISTS = 0.8  # probability that a patient's finding is in an image of theirs
TESTED = 5  # every so many-th patient is tested
IMAGES = {"train_val": 2.0, "test": 3.0}  # mean per patient: who is tested came more often, in the real lists too
MOST = 12  # images of a patient
COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImage[Width",
    "Height]",
    "OriginalImagePixelSpacing[x",
    "y]",
    "",
)
NOTE = "These radiographs were drawn by mae-bench. They are of nobody, and show only that a program runs.\n"


@dataclass(frozen=True)
class Visit:
    """One image to be drawn, and the list it goes on."""

    name: str
    number: int
    patient: Patient
    follow_up: int
    findings: tuple[str, ...]
    side: str


def write(root: Path, patients: int, size: int, progress: Callable[[int, int], None]) -> None:
    """Write the images of `patients` patients, `size` pixels a side, with their masks, table and lists."""
    visits = [visit for number in range(1, patients + 1) for visit in plan_visits(number)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(lambda visit: _write_one(root, visit, size), visits), 1):
            progress(done, len(visits))
    for side, file in LISTS.items():
        write_bytes(root / file, "".join(f"{visit.name}\n" for visit in visits if visit.side == side).encode())
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(_row(visit, size) for visit in visits)
    write_bytes(root / STAND_IN, NOTE.encode())
    # Written last: it says that every file it names is there.
    write_bytes(root / TABLES[-1], table.getvalue().encode())


def plan_visits(number: int) -> list[Visit]:
    """The images of a patient, from the patient's number alone."""
    rng = np.random.default_rng([14, number])
    patient = draw_patient(rng)
    side = "test" if number % TESTED == 0 else "train_val"
    count = min(int(rng.geometric(1 / IMAGES[side])), MOST)
    sick = rng.random() >= HEALTHY[side]
    theirs = [name for name, share in PREVALENCE.items() if sick and rng.random() < share / 100 / SICK]
    visits = []
    for follow_up in range(count):
        shown = tuple(sorted(name for name in theirs if rng.random() < PERSISTS))
        visits.append(Visit(f"{number:08d}_{follow_up:03d}.png", number, patient, follow_up, shown, side))
    return visits


def _write_one(root: Path, visit: Visit, size: int) -> None:
    rng = np.random.default_rng([15, visit.number, visit.follow_up])
    chest = draw_findings(visit.patient, visit.findings, size, rng)
    mask = np.where(chest.lungs > 0.5, np.uint8(255), np.uint8(0))
    for folder, plane in (("images", expose(chest, rng)), ("masks", mask)):
        packed = io.BytesIO()
        Image.fromarray(plane).save(packed, "png", compress_level=1)
        write_bytes(root / folder / visit.name, packed.getvalue())


def expose(chest: Chest, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a detector makes of it: scattered rays, quantum noise, blur, and a film curve of its own each time."""
    size = len(chest.opacity)
    passed = np.exp(-np.clip(chest.opacity, 0, None) * rng.uniform(0.9, 1.15))
    share = rng.uniform(0.1, 0.35)
    passed = (1 - share) * passed + share * ndimage.gaussian_filter(passed, size / 10)
    passed += rng.standard_normal(passed.shape, dtype=np.float32) * np.sqrt(passed) * rng.uniform(0.01, 0.03)
    passed = ndimage.gaussian_filter(passed, rng.uniform(0.2, 0.6) * size / 128)
    density = -np.log(np.clip(passed, 0.02, 1.2))
    low, high = np.percentile(density, [1, 99]) + rng.normal(0, 0.06, 2)
    grey = np.clip((density - low) / max(high - low, 0.2), 0, 1) ** rng.uniform(0.8, 1.25)
    # A lead letter at the shoulder of one side or the other, as technicians place it.
    top, left = (int(size * share) for share in rng.uniform((0.04, 0.8), (0.1, 0.88)))
    grey[top : top + size // 20, left : left + size // 40] = 1
    return np.asarray(np.rint(grey * 255), np.uint8)


def _row(visit: Visit, size: int) -> tuple[object, ...]:
    labels = "|".join(visit.findings) or NORMAL
    patient = visit.patient
    rest = (patient.age, "F" if patient.female else "M", "PA", size, size, 0.143, 0.143, "")
    return (visit.name, labels, visit.follow_up, visit.number, *rest)
