"""The fourteen findings, each drawn as what it is. Strengths vary, so that some are plain and some are faint."""

from collections.abc import Callable, Collection

import numpy as np

from mae_bench_plugins.datasets.cxr14.thorax import LEFT, RIGHT, Chest, Patient, Plane, bump, draw_chest, noise, step

Rng = np.random.Generator


def draw_findings(patient: Patient, findings: Collection[str], size: int, rng: Rng) -> Chest:
    """A chest with these findings (names of `FINDINGS`). Those of shape come first, those of density upon it."""
    raised = _side(rng) if "Atelectasis" in findings and rng.random() < 0.6 else 0
    chest = draw_chest(
        patient,
        size,
        rng,
        heart=rng.uniform(1.3, 1.6) if "Cardiomegaly" in findings else rng.uniform(0.92, 1.08),
        flat=rng.uniform(0.6, 1.0) if "Emphysema" in findings else 0.0,
        raised=raised,
    )
    if "Emphysema" in findings:
        chest.vessels *= 0.4
    for name, draw in DENSITIES.items():
        if name in findings:
            draw(chest, rng)
    if "Pneumothorax" in findings:
        _pneumothorax(chest, rng)
    chest.opacity += chest.vessels
    return chest


def _side(rng: Rng) -> int:
    return int(rng.choice([LEFT, RIGHT]))


def _spot(chest: Chest, rng: Rng, side: int, above: float = 1.0, below: float = -1.0) -> tuple[float, float]:
    """A place inside the lung of a side, with y between `below` and `above`; anywhere in it if there is none."""
    inside = (chest.lung(side) > 0.5) & (chest.depth > 0.06)
    between = inside & (chest.y > below) & (chest.y < above)
    places = np.flatnonzero(between if between.any() else inside)
    place = places[rng.integers(len(places))] if len(places) else chest.x.size // 2
    return float(chest.x.flat[place]), float(chest.y.flat[place])


def _around(chest: Chest, place: tuple[float, float], wide: float, high: float) -> Plane:
    return np.asarray(np.hypot((chest.x - place[0]) / wide, (chest.y - place[1]) / high), np.float32)


def _infiltration(chest: Chest, rng: Rng) -> None:
    """Ill-defined patches in one or both lungs."""
    patches = np.clip(noise(chest.x.shape, 0.06, rng) + 0.3, 0, None)
    for side in (LEFT, RIGHT) if rng.random() < 0.4 else (_side(rng),):
        zone = bump(_around(chest, _spot(chest, rng, side), 1.0, 1.0), rng.uniform(0.25, 0.4))
        chest.opacity += rng.uniform(0.25, 0.5) * patches * zone * chest.lung(side)


def _consolidation(chest: Chest, rng: Rng) -> None:
    """A part of one lung filled densely, crossed by bronchi that hold air."""
    side = _side(rng)
    centre = _spot(chest, rng, side, below=-0.3)
    distance = _around(chest, centre, rng.uniform(0.2, 0.3), rng.uniform(0.2, 0.3))
    distance += 0.15 * noise(chest.x.shape, 0.07, rng)
    filled = step(1 - distance, 0.08) * chest.lung(side)
    angle = np.arctan2(chest.y - 0.02, (chest.x - 0.17 * side) * side)
    bronchi = np.clip(np.cos(14 * angle + rng.uniform(0, 6)), 0, None) ** 12
    chest.opacity += rng.uniform(0.5, 0.75) * filled * (1 - 0.45 * bronchi)


def _pneumonia(chest: Chest, rng: Rng) -> None:
    """A fluffy density in a lower or middle zone, denser at its middle."""
    side = _side(rng)
    place = _spot(chest, rng, side, below=-0.1)
    fluff = np.clip(1 + 0.6 * noise(chest.x.shape, 0.035, rng), 0, None)
    zone = bump(_around(chest, place, 1.2, 1.0), rng.uniform(0.18, 0.28))
    chest.opacity += rng.uniform(0.45, 0.7) * fluff * zone * chest.lung(side)


def _edema(chest: Chest, rng: Rng) -> None:
    """Haze around both hila, wings of a bat, and short septal lines at the sides below."""
    wings = sum((bump(_around(chest, (0.32 * side, 0.05), 0.8, 1.1), 0.38) for side in (LEFT, RIGHT)), start=0.0)
    haze = wings * (1 + 0.25 * noise(chest.x.shape, 0.05, rng))
    lines = np.clip(np.cos(2 * np.pi * chest.y / 0.05), 0, None) ** 4 * bump(chest.depth - 0.05, 0.05)
    lines *= step(chest.y - 0.1, 0.05)
    chest.opacity += rng.uniform(0.3, 0.55) * (haze + 0.5 * lines) * chest.lungs
    chest.vessels *= rng.uniform(1.3, 1.8)


def _fibrosis(chest: Chest, rng: Rng) -> None:
    """A fine net, mostly at the bases and the borders."""
    net = bump(noise(chest.x.shape, 0.018, rng), 0.35) - 0.3
    where = np.clip(0.35 + step(chest.y - rng.uniform(-0.1, 0.2), 0.12), 0, 1) * np.exp(-chest.depth / 0.15)
    chest.opacity += rng.uniform(0.35, 0.6) * net * where * chest.lungs


def _atelectasis(chest: Chest, rng: Rng) -> None:
    """Plates: short dense bands across the lower half of a lung."""
    side = _side(rng)
    for _ in range(rng.integers(1, 4)):
        place = _spot(chest, rng, side, below=0.0)
        slope = rng.uniform(-0.35, 0.35)
        across = chest.y - place[1] - slope * (chest.x - place[0])
        band = bump(across, rng.uniform(0.015, 0.03)) * bump(chest.x - place[0], rng.uniform(0.12, 0.25))
        chest.opacity += rng.uniform(0.35, 0.6) * band * chest.lung(side)


def _nodules(chest: Chest, rng: Rng) -> None:
    """One to four round spots of up to three centimetres."""
    for _ in range(rng.integers(1, 5)):
        distance = _around(chest, _spot(chest, rng, _side(rng)), 1.0, 1.0)
        chest.opacity += rng.uniform(0.35, 0.6) * step(1 - distance / rng.uniform(0.035, 0.065), 0.12)


def _mass(chest: Chest, rng: Rng) -> None:
    """One lump of more than three centimetres with an uneven border."""
    place, radius = _spot(chest, rng, _side(rng)), rng.uniform(0.12, 0.2)
    distance = _around(chest, place, rng.uniform(0.85, 1.15), 1.0) / radius + 0.12 * noise(chest.x.shape, 0.04, rng)
    chest.opacity += rng.uniform(0.5, 0.8) * step(1 - distance, 0.08)


def _pleural_thickening(chest: Chest, rng: Rng) -> None:
    """A dense rim along the outer border or over the apex of a lung."""
    side = _side(rng)
    outside = step(chest.x * side - 0.3, 0.05) if rng.random() < 0.6 else step(-0.4 - chest.y, 0.05)
    rim = bump(chest.depth, rng.uniform(0.045, 0.08)) * (1 + 0.3 * noise(chest.x.shape, 0.06, rng))
    chest.opacity += rng.uniform(0.5, 0.8) * rim * outside * chest.lung(side)


def _effusion(chest: Chest, rng: Rng) -> None:
    """Fluid at the base of one or both lungs, its level rising to the side."""
    for side in (LEFT, RIGHT) if rng.random() < 0.35 else (_side(rng),):
        level = chest.domes[0 if side == RIGHT else 1] - rng.uniform(-0.05, 0.3)
        meniscus = level - 0.45 * np.clip(chest.x * side - 0.4, 0, None) ** 1.5
        chest.opacity += rng.uniform(0.7, 0.95) * step(chest.y - meniscus, 0.025) * chest.lung(side)


def _hernia(chest: Chest, rng: Rng) -> None:
    """A round density behind the heart on the diaphragm, with air above a level of fluid."""
    place = (rng.uniform(-0.02, 0.16), chest.domes[1] - rng.uniform(0.08, 0.16))
    pouch = step(1 - _around(chest, place, rng.uniform(0.16, 0.24), rng.uniform(0.14, 0.2)), 0.06)
    chest.opacity += pouch * (0.4 - 0.95 * step(place[1] - chest.y, 0.015))


def _pneumothorax(chest: Chest, rng: Rng) -> None:
    """Air around a lung that has drawn back: dark and without vessels, behind a thin bright line."""
    side = _side(rng)
    gap = rng.uniform(0.08, 0.2) * np.clip(1.25 - 0.5 * (chest.y + 1), 0.3, None)
    air = step(gap - chest.depth, 0.008) * chest.lung(side)
    chest.vessels *= 1 - air
    chest.opacity -= rng.uniform(0.2, 0.35) * air
    chest.opacity += 0.35 * bump(chest.depth - gap, 0.014) * chest.lung(side)


DENSITIES: dict[str, Callable[[Chest, Rng], None]] = {
    "Infiltration": _infiltration,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Edema": _edema,
    "Fibrosis": _fibrosis,
    "Atelectasis": _atelectasis,
    "Nodule": _nodules,
    "Mass": _mass,
    "Pleural_Thickening": _pleural_thickening,
    "Effusion": _effusion,
    "Hernia": _hernia,
}
