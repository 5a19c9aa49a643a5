"""The stand-in of `medmnist`: drawn shapes in noise, one kind per class, in the published npz layout.

A class is an outline (waves on an ellipsoid) and a brightness; what makes an image of it a question is where it lies,
how large, turned and bright it is, a slope of brightness across the field, and noise.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mae_bench.store import write_bytes
from mae_bench_plugins.datasets.medmnist.archive import DEMO
from mae_bench_plugins.datasets.medmnist.catalogue import SIDES, Published

Field = NDArray[np.float32]
TRAIN, VAL = 0.6, 0.15  # shares of the images; the rest is for testing
WAVES = 3


class Kind(NamedTuple):
    """What all shapes of a class share. stretch: (axes,). waves: (WAVES, axes) and their heights (WAVES,)."""

    stretch: Field
    waves: Field
    heights: Field
    level: Field


def write(
    root: Path, name: str, facts: Published, size: int, samples: int, progress: Callable[[int, int], None]
) -> None:
    """Write the file and, last, the note with its MD5 that marks it as a stand-in."""
    kinds = [_kind(number, facts) for number in range(len(facts.labels))]
    train, val = round(TRAIN * samples), round(VAL * samples)
    arrays: dict[str, NDArray[Any]] = {}
    done = 0
    for place, (side, count) in enumerate(zip(SIDES, (train, val, samples - train - val), strict=True)):
        images, labels = [], []
        for number in range(count):
            rng = np.random.default_rng([place, number])
            present = _present(number, facts, rng)
            images.append(_draw([kinds[kind] for kind in np.flatnonzero(present)], facts, size, rng))
            labels.append(present.astype(np.uint8) if facts.multi_label else np.array([present.argmax()], np.uint8))
            done += 1
            progress(done, samples)
        arrays |= {f"{side}_images": np.stack(images), f"{side}_labels": np.stack(labels)}
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    write_bytes(root / name, packed.getvalue())
    md5 = hashlib.md5(packed.getvalue(), usedforsecurity=False).hexdigest()
    write_bytes(root / DEMO, f"{md5}  {name}\n".encode())


def _present(number: int, facts: Published, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which classes are in an image, (classes,): in turn, so that every side has all; of several, others at random."""
    classes = np.arange(len(facts.labels))
    if not facts.multi_label:
        return np.asarray(classes == number % len(classes))
    return np.asarray((classes == number % (2 * len(classes))) | (rng.random(len(classes)) < 0.08))


def _kind(number: int, facts: Published) -> Kind:
    rng = np.random.default_rng([3, number])
    stretch = rng.uniform(0.6, 1.5, facts.axes)
    waves = rng.normal(0, 2.5, (WAVES, facts.axes))
    level = rng.uniform(0.45, 0.9, facts.channels)
    return Kind(*(part.astype(np.float32) for part in (stretch, waves, rng.uniform(0.1, 0.3, WAVES), level)))


def _draw(kinds: list[Kind], facts: Published, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One image, (*spatial) or (*spatial, 3); from 0 to 255, of shape masks 0 or 255."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    where = np.stack(np.meshgrid(*[axis] * facts.axes, indexing="ij"))
    image = np.full((facts.channels, *where.shape[1:]), 0.25, np.float32)
    mask = np.zeros(where.shape[1:], np.float32)
    for kind in kinds:
        inside = _inside(kind, where, size, rng)
        gain = np.float32(rng.normal(1, 0.12))
        level = (kind.level * gain).reshape(-1, *[1] * facts.axes)
        image += inside * (level - image)
        mask = np.maximum(mask, inside)
    if facts.shape:
        return np.where(mask > 0.5, 255, 0).astype(np.uint8)
    slope = np.tensordot(rng.normal(0, 0.08, facts.axes).astype(np.float32), where, 1)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(0.06)
    grey = np.clip(np.rint((image * (1 + slope) + noise) * 255), 0, 255).astype(np.uint8)
    return np.moveaxis(grey, 0, -1) if facts.channels == 3 else grey[0]


def _inside(kind: Kind, where: Field, size: int, rng: np.random.Generator) -> Field:
    """How much of each place lies inside a shape of this kind, 0 to 1, with an edge one place wide."""
    axes = len(where)
    centre = rng.uniform(-0.3, 0.3, axes).astype(np.float32).reshape(-1, *[1] * axes)
    scale = np.float32(rng.uniform(0.4, 0.6))
    turn = np.linalg.qr(np.eye(axes) + rng.normal(0, 0.12, (axes, axes)))[0]
    turn = (turn * np.sign(np.diag(turn))).astype(np.float32)  # a small turn, never a mirror image
    local = np.tensordot(turn, (where - centre) / scale, 1)
    radius = np.sqrt(((local * kind.stretch.reshape(-1, *[1] * axes)) ** 2).sum(axis=0))
    outline = 1 + np.tensordot(kind.heights, np.sin(np.tensordot(kind.waves, local, 1)), 1)
    return np.asarray(np.clip((outline - radius) * scale * size / 2 + 0.5, 0, 1), np.float32)
