"""Who tells generated images from real ones: one sees whole images, one compares textures of patches. PAPER 5b."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench_plugins.pretraining.lsae.layers import Conv, EqualLinear, ResBlock

WIDEST = 16  # channels of the deepest maps, in widths
FULL = 512  # maps of this side have one width of channels; halving the side doubles them
LAST = 4  # side of the map that the linear layers see
TEXTURES = (2, 4, 8, 12, 24)  # channels of the patch blocks, in widths; all but the last halve
SEEN = 12  # length of what is said of a patch, in widths


def channels_at(side: int, width: int) -> int:
    """Channels of the image discriminator's maps of this side; by the power of two at or above it."""
    return min(WIDEST * width, max(1, FULL * width >> math.ceil(math.log2(side))))


class ImageDiscriminator(nn.Module):
    """The residual discriminator of StyleGAN2, without minibatch deviation: images (B, C, H, W) to logits (B,).

    Maps are halved until their shorter side is below 8; what is then larger than 4 x 4 is averaged to that.

    Args:
        channels: of the image.
        side: shorter side of the images; it decides the number of blocks.
        width: 32 published.
    """

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        inputs = channels_at(side, width)
        layers: list[nn.Module] = [Conv(channels, inputs, 1)]
        while side >= 2 * LAST:
            side //= 2
            outputs = channels_at(side, width)
            layers.append(ResBlock(inputs, outputs))
            inputs = outputs
        layers.append(Conv(inputs, WIDEST * width, 3))
        self.maps = nn.Sequential(*layers)
        wide = WIDEST * width
        self.head = nn.Sequential(EqualLinear(wide * LAST**2, wide, activate=True), EqualLinear(wide, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of being real."""
        maps = F.adaptive_avg_pool2d(self.maps(images), LAST)
        logits: Tensor = self.head(maps.flatten(1))[:, 0]
        return logits


class PatchDiscriminator(nn.Module):
    """Do these patches have the texture of those? The strongest answer of an image's patches speaks for it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv(channels, width, 1)]
        inputs = width
        for number, factor in enumerate(TEXTURES):
            layers.append(ResBlock(inputs, factor * width, halve=number < len(TEXTURES) - 1))
            inputs = factor * width
        layers.append(Conv(inputs, SEEN * width, 1))
        self.maps = nn.Sequential(*layers)
        sizes = [2 * SEEN * width, 32 * width, 32 * width, 16 * width]
        self.head = nn.Sequential(
            *(EqualLinear(before, after, activate=True) for before, after in pairwise(sizes)),
            EqualLinear(sizes[-1], 1),
        )

    def describe(self, patches: Tensor) -> Tensor:
        """Patches (B, N, C, P, P) of B images to (B, 12 widths): averaged over places, largest over patches."""
        maps: Tensor = self.maps(patches.flatten(0, 1))
        return maps.mean(dim=(2, 3)).reshape(*patches.shape[:2], -1).amax(dim=1)

    def forward(self, described: Tensor, reference: Tensor) -> Tensor:
        """Logits (B,) of what `describe` said of the patches in question and of the reference."""
        logits: Tensor = self.head(torch.cat([described, reference], dim=1))[:, 0]
        return logits
