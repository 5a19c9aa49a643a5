"""Batches of crops as a pure function of (seed, step): resuming, worker processes and ranks cannot change them.

Crops leave here in the precision they are stored in: widening them, and all arithmetic on them, is done on the device
(engine/inputs.py), where it costs least.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mae_bench.data import augment
from mae_bench.data.prepared import Prepared, PreparedCase, box_around
from mae_bench.errors import UsageError

AS_IT_IS = augment.Augmentation()
JITTER = 2  # voxels by which the middle crop of a classified image moves
APART = 4  # further views lie within a quarter of the crop from the first


class Batch(NamedTuple):
    """images: (B, C, *roi) float16, or (B, V, C, *roi) with several views.

    labels: (B, *roi) uint8 label values, or (B, V, *roi). findings: (B, K) float32. gain: (B, 2) float32, or
    (B, V, 2): scale and shift of the intensities, still to be applied.
    """

    images: NDArray[np.float16]
    labels: NDArray[np.uint8] | None
    findings: NDArray[np.float32] | None
    gain: NDArray[np.float32] | None


@dataclass(frozen=True)
class Crops:
    """Draws batches from prepared cases.

    labelled_share: share of crops centred on a labelled voxel, its label value drawn first so that small classes are
    seen; the others are centred on a foreground voxel, which needs no labels. with_labels: give the label or mask of
    each crop, zeros for cases without. centred: always the middle of the image (classification). views: crops of the
    same place, each augmented by itself. rank, world: this process draws every `world`-th item of the batch.
    """

    prepared: Prepared
    ids: Sequence[str]
    roi: tuple[int, ...]
    batch: int
    crops: int
    seed: int
    labelled_share: float = 0.0
    with_labels: bool = False
    centred: bool = False
    views: int = 1
    augmentation: augment.Augmentation = AS_IT_IS
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        """Refuse a batch that processes cannot share equally: their gradients are averaged with equal weights."""
        if self.batch % self.world:
            raise UsageError(f"a batch of {self.batch} cases cannot be shared equally by {self.world} processes")

    def __call__(self, step: int) -> Batch:
        """The part of batch `step` that falls to this rank."""
        items = range(self.rank, self.batch, self.world)
        count, first = len(items) * self.crops, self.prepared.case(self.case_id(step, items[0]))
        images = np.empty((count, self.views, len(first.image()), *self.roi), np.float16)
        labels = np.zeros((count, self.views, *self.roi), np.uint8) if self.with_labels else None
        gain = np.empty((count, self.views, 2), np.float32) if self.augmentation.intensity else None
        findings = []
        for place, item in enumerate(items):
            case = self.prepared.case(self.case_id(step, item))
            image = case.image()
            label = case.label() if self.with_labels and case.facts.labelled else None
            for number in range(self.crops):
                rng = np.random.default_rng([self.seed, step, item, number])
                centre = self._centre(case, rng)
                row = place * self.crops + number
                for view in range(self.views):
                    into = (images[row, view], None if labels is None else labels[row, view])
                    self._fill(into, image, label, centre if view == 0 else self._near(centre, rng), rng)
                    if gain is not None:
                        gain[row, view] = augment.draw_gain(self.augmentation, rng)
                findings.append(case.facts.findings)
        if self.views == 1:
            images = images[:, 0]
            labels = None if labels is None else labels[:, 0]
            gain = None if gain is None else gain[:, 0]
        return Batch(images, labels, np.array(findings, np.float32) if findings[0] else None, gain)

    def case_id(self, step: int, item: int) -> str:
        """Which case: each epoch is a new permutation of all of them."""
        epoch, place = divmod(step * self.batch + item, len(self.ids))
        return self.ids[int(_order(self.seed, epoch, len(self.ids))[place])]

    def _centre(self, case: PreparedCase, rng: np.random.Generator) -> tuple[int, ...]:
        if self.centred:
            return tuple(int(size // 2 + rng.integers(-JITTER, JITTER + 1)) for size in case.facts.shape)
        if rng.random() < self.labelled_share:
            values = [name for name in case.facts.points if name != "foreground"]
            if values and (point := case.point(values[rng.integers(len(values))], rng)):
                return point
        return case.point("foreground", rng) or tuple(int(rng.integers(size)) for size in case.facts.shape)

    def _near(self, centre: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
        return tuple(
            int(point + rng.integers(-(size // APART), size // APART + 1))
            for point, size in zip(centre, self.roi, strict=True)
        )

    def _fill(
        self,
        into: tuple[NDArray[np.float16], NDArray[np.uint8] | None],
        image: NDArray[np.float16],
        label: NDArray[np.uint8] | None,
        centre: tuple[int, ...],
        rng: np.random.Generator,
    ) -> None:
        """Write one augmented crop of `image` and `label` where they belong in the batch: it is copied once."""
        chosen, shape = self.augmentation, image.shape[1:]
        box = box_around(centre, self.roi, shape) if chosen.area is None else augment.draw_box(shape, chosen.area, rng)
        flips = augment.draw_flips(chosen, rng)
        turn = rng.uniform(-chosen.rotate, chosen.rotate) if chosen.rotate else 0.0
        for target, source in ((into[0], image[(slice(None), *box)]), (into[1], None if label is None else label[box])):
            if target is None or source is None:
                continue
            if chosen.area is not None:
                source = augment.resize(source, self.roi)
            if turn:
                source = augment.rotate(source, turn, len(self.roi))
            if source.shape != target.shape:
                target[:] = 0
            inside = tuple(slice(0, size) for size in source.shape)
            # Flipped with its padding: an image smaller than the crop may lie at either end.
            np.flip(target, tuple(axis - len(self.roi) for axis in flips))[inside] = source


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, cases: int) -> NDArray[np.intp]:
    """The permutation of an epoch; a batch may lie in two of them."""
    order = np.random.default_rng([seed, epoch, cases]).permutation(cases)
    order.flags.writeable = False
    return order
