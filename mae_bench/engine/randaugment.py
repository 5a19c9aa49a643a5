"""RandAugment (Cubuk et al. 2020) on batches of classified planes, by timm; the paper's fine-tuning of ChestX-ray14."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from accelerate.utils import set_seed
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from mae_bench.data.crops import Batch
from mae_bench.errors import UsageError
from mae_bench.task import Intensity


@dataclass
class RandAugmented:
    """Batches of `crops`, each image changed by two random operations of a magnitude.

    The operations are made for 8-bit pictures of one or three channels, so an image passes through one on its way;
    its normalisation (`intensity`) is undone and done again. shape: (C, *roi) of an image. rank, world: as of `Crops`:
    what is drawn for an image does not depend on which process has it.
    """

    crops: Callable[[int], Batch]
    magnitude: int
    intensity: Intensity
    seed: int
    shape: tuple[int, ...]
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        """Refuse images that are no pictures."""
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise UsageError("--set finetune.randaugment: only planes of one or three channels can have it")
        if self.intensity.kind == "zscore":
            raise UsageError("--set finetune.randaugment: images without fixed limits of intensity cannot have it")
        self.change = rand_augment_transform(f"rand-m{self.magnitude}-mstd0.5-inc1", {})

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        batch = self.crops(step)
        mean, std = self.intensity.mean, self.intensity.std
        images = []
        for row, image in enumerate(batch.images.astype(np.float32)):
            number = self.rank + row * self.world
            # timm draws from the generators of Python and numpy.
            set_seed(int(np.random.SeedSequence([self.seed, step, number]).generate_state(1)[0]))
            pixels = np.clip(np.rint((image * std + mean) * 255), 0, 255).astype(np.uint8)
            three = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
            changed = np.asarray(self.change(Image.fromarray(np.ascontiguousarray(three))), np.float32)
            images.append((changed.transpose(2, 0, 1)[: len(image)] / 255 - mean) / std)
        return batch._replace(images=np.stack(images).astype(np.float16))
