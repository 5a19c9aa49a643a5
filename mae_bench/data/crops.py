"""Batches of crops as a pure function of (seed, step): resuming, worker processes and ranks cannot change them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mae_bench.data.prepared import Prepared, PreparedCase
from mae_bench.errors import UsageError


class Batch(NamedTuple):
    """images: (B, C, *roi) float32. labels: (B, *roi) uint8 label values. findings: (B, K) float32."""

    images: NDArray[np.float32]
    labels: NDArray[np.uint8] | None
    findings: NDArray[np.float32] | None


@dataclass(frozen=True)
class Augmentation:
    """Flips along `axes` with probability `flip` each; intensities scaled and shifted by up to `intensity`."""

    axes: tuple[int, ...] = ()
    flip: float = 0.0
    intensity: float = 0.0


@dataclass(frozen=True)
class Crops:
    """Draws batches from prepared cases.

    labelled_share: share of crops centred on a labelled voxel, its label value drawn first so that small classes are
    seen; the others are centred on a foreground voxel, which needs no labels. centred: always the middle of the image
    (classification). rank, world: this process draws every `world`-th item of the batch.
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
    zscore: bool = False
    augmentation: Augmentation = Augmentation()
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        """Refuse a batch that processes cannot share equally: their gradients are averaged with equal weights."""
        if self.batch % self.world:
            raise UsageError(f"a batch of {self.batch} cases cannot be shared equally by {self.world} processes")

    def __call__(self, step: int) -> Batch:
        """The part of batch `step` that falls to this rank."""
        images, labels, findings = [], [], []
        for item in range(self.rank, self.batch, self.world):
            case = self.prepared.case(self.case_id(step, item))
            for number in range(self.crops):
                rng = np.random.default_rng([self.seed, step, item, number])
                centre = self._centre(case, rng)
                crop = case.crop(centre, self.roi, with_label=self.with_labels)
                image, label = self._augment(crop.image, crop.label, rng)
                images.append(image)
                labels.append(label)
                findings.append(case.facts.findings)
        return Batch(
            np.stack(images),
            np.stack([label for label in labels if label is not None]) if self.with_labels else None,
            np.array(findings, np.float32) if findings[0] else None,
        )

    def case_id(self, step: int, item: int) -> str:
        """Which case: each epoch is a new permutation of all of them."""
        epoch, place = divmod(step * self.batch + item, len(self.ids))
        order = np.random.default_rng([self.seed, epoch, len(self.ids)]).permutation(len(self.ids))
        return self.ids[int(order[place])]

    def _centre(self, case: PreparedCase, rng: np.random.Generator) -> tuple[int, ...]:
        middle = tuple(size // 2 for size in case.facts.shape)
        if self.centred:
            return tuple(int(point + rng.integers(-2, 3)) for point in middle)
        if rng.random() < self.labelled_share:
            values = [name for name in case.facts.points if name != "foreground"]
            if values and (point := case.point(values[rng.integers(len(values))], rng)):
                return point
        return case.point("foreground", rng) or middle

    def _augment(
        self, image: NDArray[np.float32], label: NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        if self.zscore:
            _crop_zscore(image)
        chosen = [axis for axis in self.augmentation.axes if rng.random() < self.augmentation.flip]
        if chosen:
            image = np.flip(image, tuple(axis + 1 for axis in chosen))
            label = None if label is None else np.flip(label, tuple(chosen))
        if self.augmentation.intensity:
            limit = self.augmentation.intensity
            scale, shift = 1 + rng.uniform(-limit, limit), rng.uniform(-limit, limit)
            # Zeros are outside the body: they stay what the network knows as nothing.
            image = np.where(image != 0, image * np.float32(scale) + np.float32(shift), np.float32(0))
        return image, label


def _crop_zscore(image: NDArray[np.float32]) -> None:
    """Normalise each channel over its own non-zero voxels, in place (the paper's training crops; PAPER D7)."""
    for channel in image:
        inside = channel != 0
        if inside.any():
            values = channel[inside]
            channel[inside] = (values - values.mean()) / (float(values.std()) or 1.0)
