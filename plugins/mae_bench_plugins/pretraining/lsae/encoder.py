"""What LSAE sees in an image: where things are (structure) and what they look like (texture). PAPER 5b."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.interfaces import Features
from mae_bench_plugins.pretraining.lsae.layers import GAIN, SLOPE, Conv, EqualLinear, ResBlock

STRIDE = 16  # pixels per place of the maps
BLOCKS = (1, 2, 4, 8)  # channels of a branch, in widths
VALID_FROM = 7  # places per axis from which the texture head needs no padding: 7 to 3 to 1


class Branch(nn.Module):
    """Four residual blocks that halve the map: (B, width, H, W) to maps of 1, 2, 4 and 8 widths, down to H / 16."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        widths = [inputs, *(width * factor for factor in BLOCKS)]
        self.blocks = nn.ModuleList(ResBlock(before, after, reflect=True) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps after each block."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def make_stem(channels: int, width: int) -> Conv:
    """The first layer, which both branches share: (B, channels, H, W) to (B, width, H, W)."""
    return Conv(channels, width, 3, reflect=True)


class Structure(nn.Module):
    """The structure branch with its head. Gives (B, structure, H / 16, W / 16), and the maps on the way there."""

    def __init__(self, inputs: int, width: int, structure: int) -> None:
        super().__init__()
        self.branch = Branch(inputs, width)
        wide = width * BLOCKS[-1]
        self.head = nn.Sequential(Conv(wide, wide, 1), Conv(wide, structure, 1, activate=False))

    def forward(self, stem: Tensor) -> tuple[Tensor, list[Tensor]]:
        """From the stem's output (B, inputs, H, W)."""
        maps = self.branch(stem)
        return self.head(maps[-1]), maps


class _Stride2(Conv):
    """3 x 3 convolution at every second place, without a filter; `pad` zeros around the map."""

    def forward(self, x: Tensor, pad: int = 0) -> Tensor:
        assert self.bias is not None
        weight, border = self.weight * self.scale, [pad, pad]
        for axis in (2, 3):
            if pad and x.shape[axis] == 1:
                # Only the centre meets a pixel. Leaving the border out is more than thrift: torch 2.14's gradient of
                # the weights, in bf16 on the CPU, reads memory that nobody wrote where a bordered map is 1 pixel wide.
                weight, border[axis - 2] = weight.narrow(axis, 1, 1), 0
        y = F.conv2d(x, weight, self.bias * GAIN, stride=2, padding=border)
        return F.leaky_relu(y, SLOPE)


class TextureEncoder(nn.Module):
    """Stem and texture branch of LSAE, an encoder: `pooled` is the texture vector.

    The head's convolutions are valid, as published, where the map has 7 places per axis (112 pixels) or more; smaller
    maps get a border of zeros, which loses no place. `map` is what the last layer says of each place of the head,
    interpolated to `grid`. There is no `hidden`.

    Args:
        channels: image channels.
        roi: image size in pixels, multiples of 16 from 32.
        width: channels of the stem; 32 published.
        dim: length of the texture vector; 2048 published.
    """

    depth = 0

    def __init__(self, channels: int, roi: Sequence[int], width: int, dim: int) -> None:
        super().__init__()
        self.channels, self.width, self.dim = channels, width, dim
        self.patch = (STRIDE, STRIDE)
        self.grid = tuple(size // STRIDE for size in roi)
        self.stem = make_stem(channels, width)
        self.branch = Branch(width, width)
        self.head = nn.ModuleList([_Stride2(8 * width, 16 * width, 3), _Stride2(16 * width, 32 * width, 3)])
        self.vector = EqualLinear(32 * width, dim)

    def forward(self, x: Tensor) -> Features:
        """See `Features`. x: (B, C, H, W)."""
        local = self.local(self.stem(x))
        places = self.vector(local.movedim(1, -1)).movedim(-1, 1)
        grid = tuple(size // STRIDE for size in x.shape[2:])
        spread = F.interpolate(places, grid, mode="bilinear", align_corners=False)
        # The last layer is affine: the vector of the mean is the mean of the vectors.
        return Features(places.mean(dim=(2, 3)), spread, ())

    def texture(self, stem: Tensor) -> Tensor:
        """The texture vector (B, dim) from the stem's output."""
        vector: Tensor = self.vector(self.local(stem).mean(dim=(2, 3)))
        return vector

    def local(self, stem: Tensor) -> Tensor:
        """What the head says of each place, (B, 32 widths, h, w), before it is averaged."""
        x: Tensor = self.branch(stem)[-1]
        pad = int(min(x.shape[2:]) < VALID_FROM)
        for layer in self.head:
            x = layer(x, pad)
        return x

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters from input to output: stem, each block, each convolution of the head, last layer."""
        parts = [self.stem, *self.branch.blocks, *self.head, self.vector]
        return [list(part.parameters()) for part in parts]
