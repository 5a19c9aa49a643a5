"""A drawn chest: what a frontal radiograph of a healthy patient is the sum of, each part at its place.

Coordinates run from -1 to 1, x to the right of the picture (the patient's left) and y down. Opacities are in the
units of the exponent of X-ray attenuation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.float32]
Field = NDArray[np.floating[Any]]  # what numpy makes of planes and numbers on the way

LEFT, RIGHT = 1, -1  # sides as the patient has them: left lies at positive x


@dataclass(frozen=True)
class Patient:
    """What stays the same in all images of a patient."""

    chest: float  # half width of the rib cage
    apex: float  # y of the top of the lungs
    domes: tuple[float, float]  # y of the diaphragm, right and left
    heart: tuple[float, float]  # half width and half height
    lean: float  # how far the heart lies to the left
    ribs: float  # distance between ribs
    rib_phase: float
    rib_slope: float
    spine: float
    clavicle: float  # slope
    fat: float
    breasts: float
    grain: int  # seed of the vessels
    age: int
    female: bool


@dataclass
class Chest:
    """One image in the making: opacity so far, and where things are. All planes (H, W); lungs are 0 to 1.

    depth: distance inwards from the chest wall, in units of half a picture. vessels: opacity of the vessels,
    apart, since air around a collapsed lung shows none.
    """

    patient: Patient
    x: Plane
    y: Plane
    opacity: Plane
    lungs: Plane
    depth: Plane
    vessels: Plane
    domes: tuple[float, float]
    heart: tuple[float, float, float, float]  # centre and half widths

    def lung(self, side: int) -> Plane:
        """The lung of one side."""
        return np.asarray(self.lungs * (self.x * side > 0), np.float32)


def draw_patient(rng: np.random.Generator) -> Patient:
    """A patient by chance."""
    female = bool(rng.random() < 0.44)
    dome = rng.uniform(0.42, 0.54)
    return Patient(
        chest=rng.uniform(0.74, 0.84),
        apex=rng.uniform(-0.84, -0.72),
        domes=(dome - rng.uniform(0.01, 0.06), dome),
        heart=(rng.uniform(0.30, 0.37), rng.uniform(0.30, 0.36)),
        lean=rng.uniform(0.09, 0.15),
        ribs=rng.uniform(0.155, 0.185),
        rib_phase=rng.random(),
        rib_slope=rng.uniform(0.25, 0.45),
        spine=rng.uniform(0.085, 0.11),
        clavicle=rng.uniform(0.1, 0.3),
        fat=rng.uniform(0.15, 0.6),
        breasts=rng.uniform(0.1, 0.3) if female else 0.0,
        grain=int(rng.integers(1 << 31)),
        age=int(np.clip(rng.normal(47, 17), 2, 94)),
        female=female,
    )


def step(x: Field, width: float = 0.02) -> Plane:
    """A soft step, 0 to 1, around zero."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x / width, -30, 30))), np.float32)


def bump(distance: Field, width: float) -> Plane:
    """A soft ridge of height 1 where `distance` is zero."""
    return np.asarray(np.exp(-((distance / width) ** 2)), np.float32)


def noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> Plane:
    """Gaussian noise of unit deviation that varies over `scale`, in units of half a picture."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), scale * shape[0] / 2, mode="wrap")
    return np.asarray(field / field.std(), np.float32)


def draw_chest(
    patient: Patient, size: int, rng: np.random.Generator, *, heart: float = 1.0, flat: float = 0.0, raised: int = 0
) -> Chest:
    """The chest of a patient on one day.

    Args:
        patient: whose it is.
        size: pixels a side.
        rng: position and depth of breath of the day.
        heart: factor on the width of the heart.
        flat: emphysema, 0 to 1: the diaphragm is pushed down and flat, the heart narrow.
        raised: side on which the diaphragm stands high (atelectasis), 0 for none.
    """
    x, y = _grid(size, rng)
    breath = rng.normal(0, 0.025) + 0.13 * flat
    domes = tuple(
        level + breath - (0.13 if side == raised else 0.0)
        for level, side in zip(patient.domes, (RIGHT, LEFT), strict=True)
    )
    half = (patient.heart[0] * heart * (1 - 0.2 * flat), patient.heart[1] * (0.6 + 0.4 * heart))
    centre = (patient.lean + 0.35 * (half[0] - patient.heart[0]), domes[1] - 0.75 * half[1])
    lungs, within = _lungs(patient, x, y, domes, flat)
    cardiac = _heart_shape(x, y, (*centre, *half))
    lungs *= 1 - 0.8 * step(1 - cardiac, 0.1)
    depth = ndimage.distance_transform_edt(within > 0.5).astype(np.float32) * (2 / size)
    vessels = _vessels(patient, x, y, lungs)
    opacity = _soft_tissue(patient, x, y) + _bones(patient, x, y)
    opacity += 0.55 * step(1 - cardiac, 0.14) * (1.2 - 0.5 * np.clip(cardiac, 0, 1)) + 0.5 * _mediastinum(patient, x, y)
    opacity += _belly(x, y, (domes[0], domes[1]), rng)
    opacity -= (0.95 + 0.2 * flat) * lungs * (0.75 + 0.25 * np.clip(depth / 0.2, 0, 1))
    return Chest(patient, x, y, opacity, lungs, depth, vessels, (domes[0], domes[1]), (*centre, *half))


def _grid(size: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    line = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    column, row = np.meshgrid(line, line)
    turn, zoom, (right, down) = rng.normal(0, 0.03), rng.normal(1.0, 0.03), rng.normal(0, 0.03, 2)
    x = (np.cos(turn) * column + np.sin(turn) * row) * zoom + right
    y = (np.cos(turn) * row - np.sin(turn) * column) * zoom + down
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def _lungs(patient: Patient, x: Plane, y: Plane, domes: tuple[float, ...], flat: float) -> tuple[Plane, Plane]:
    """The lungs, and the space within the chest wall, whose border is only lateral and above."""
    # The outer border widens downwards from the apex, as the rib cage does.
    height = np.clip((y - patient.apex) / (0.55 - patient.apex), 0, 1.3)
    outer = patient.chest * np.clip(1 - (1 - np.clip(height, 0, 1)) ** 2.6, 0, 1) ** 0.5
    within = step(outer - np.abs(x)) * step(y - patient.apex)
    lungs = np.zeros_like(x)
    for side, dome in zip((RIGHT, LEFT), domes, strict=True):
        across = x * side
        curve = 0.9 - 0.75 * flat
        floor = dome + curve * (across - 0.5 * patient.chest) ** 2 + 0.08 * step(across - 0.9 * patient.chest)
        lungs += step(across - 0.13 - 0.05 * height) * step(floor - y) * within
    return np.asarray(np.clip(lungs, 0, 1), np.float32), within


def _heart_shape(x: Plane, y: Plane, heart: tuple[float, float, float, float]) -> Plane:
    """Below 1 inside: an ellipse whose axis leans to the left below."""
    centre_x, centre_y, width, height = heart
    u, v = x - centre_x, y - centre_y
    return np.asarray(((u - 0.35 * v) / width) ** 2 + ((v - 0.2 * u) / (1.15 * height)) ** 2, np.float32)


def _soft_tissue(patient: Patient, x: Plane, y: Plane) -> Plane:
    wide = patient.chest + 0.12 + 0.15 * patient.fat
    body = step(1 - (np.abs(x) / (wide + 0.35 * step(-0.45 - y, 0.15))) ** 6 * step(y + 1.4), 0.1)
    neck = step(np.abs(x) - 0.25, 0.05) * step(-0.86 + 0.25 * (np.abs(x) - 0.25) - y, 0.03)
    tissue = body * (1.35 + 0.5 * patient.fat * (0.6 + 0.4 * y)) * (1 - 0.7 * neck)
    for side in (RIGHT, LEFT):
        away = np.hypot((x - 0.45 * side) / 0.38, (y - 0.25) / 0.34)
        tissue += patient.breasts * step(1 - away, 0.05) * step(y - 0.1, 0.1)
    return np.asarray(tissue, np.float32)


def _bones(patient: Patient, x: Plane, y: Plane) -> Plane:
    across = np.abs(x)
    cage = step(patient.chest + 0.03 - across) * step(y + 0.82, 0.04) * step(0.75 - y, 0.05)
    back = (y + patient.rib_slope * (0.25 - across) - 0.55 * across**2) / patient.ribs + patient.rib_phase
    front = (y - 0.9 * (across - 0.3)) / (1.25 * patient.ribs) + patient.rib_phase
    bones = 0.26 * _rib(back) * cage * step(across - 0.1) + 0.1 * _rib(front) * cage * step(across - 0.35, 0.05)
    spine = bump(x, patient.spine) ** 2 * (1 + 0.18 * np.cos(2 * np.pi * y / 0.17))
    collar = bump(y + 0.66 + patient.clavicle * (across - 0.35), 0.035) * step(across - 0.08) * step(0.78 - across)
    return np.asarray(bones + 0.5 * spine + 0.3 * collar, np.float32)


def _rib(phase: Field) -> Plane:
    """A tube seen from the side, brighter at its edges: the bone is a shell."""
    place = np.abs(phase % 1 - 0.5)
    return np.asarray(0.6 * step(0.2 - place, 0.025) + 0.5 * bump(place - 0.19, 0.05), np.float32)


def _mediastinum(patient: Patient, x: Plane, y: Plane) -> Plane:
    middle = step(0.17 + 0.03 * y - np.abs(x), 0.03)
    arch = bump(np.hypot((x - 0.14) / 1.0, y + 0.36), 0.12)
    windpipe = bump(x - 0.01, 0.045) * step(-0.25 - y, 0.04)
    return np.asarray(middle + 0.5 * arch - 0.45 * windpipe, np.float32)


def _belly(x: Plane, y: Plane, domes: tuple[float, float], rng: np.random.Generator) -> Plane:
    below = step(y - np.where(x > 0, domes[1], domes[0]) - 0.9 * (np.abs(x) - 0.38) ** 2, 0.03)
    gas = bump(
        np.hypot((x - rng.uniform(0.25, 0.45)) / 1.5, y - domes[1] - rng.uniform(0.12, 0.2)), rng.uniform(0.05, 0.12)
    )
    return np.asarray(0.55 * below - 0.45 * gas * below, np.float32)


def _vessels(patient: Patient, x: Plane, y: Plane, lungs: Plane) -> Plane:
    """Branches that run from the hilum outwards and fade: noise that is stretched along the radius."""
    own = np.random.default_rng(patient.grain)
    phases, bends = own.uniform(0, 2 * np.pi, (2, 6)), own.uniform(2, 5, (2, 6))
    found = np.zeros_like(x)
    for number, side in enumerate((RIGHT, LEFT)):
        u, v = x - 0.17 * side, y - 0.02
        radius, angle = np.hypot(u, v), np.arctan2(v, u * side)
        branches = np.zeros_like(x)
        for order in range(6):
            wave = angle * (5 + 3 * order) + bends[number, order] * radius * 3 + phases[number, order]
            branches += np.clip(np.cos(wave), 0, None) ** 6
        fade = np.exp(-radius / 0.35) * (x * side > 0)
        found += fade * (0.3 * branches) + 0.25 * bump(radius, 0.11) * (x * side > 0)
    return np.asarray(found * lungs, np.float32)
