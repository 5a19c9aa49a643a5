"""UNETR (Hatamizadeh et al. 2022, figure 2) on MONAI's blocks, for any number of levels and uneven patches."""

import math
from typing import Any

from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock, get_conv_layer
from torch import Tensor, nn

from mae_bench.errors import UsageError

NORM = "instance"


class UNETRModel(nn.Module):
    """Encoder plus decoder. x: (B, C, *roi) gives logits (B, outputs, *roi).

    A patch of 2^n voxels gives n levels: 16 is the published network with its three skips, 8 has two. An axis with a
    smaller patch is doubled in fewer levels, the finest ones.
    """

    def __init__(self, encoder: Any, outputs: int, features: int) -> None:
        super().__init__()
        self.encoder = encoder
        ndim = len(encoder.patch)
        levels = max(int(math.log2(size)) for size in encoder.patch)
        if levels < 1 or any(size & (size - 1) for size in encoder.patch):
            raise UsageError(f"unetr doubles its maps up to full size: a patch of {encoder.patch} is no power of two")
        # strides[k]: how level k (0 is the finest) is made from level k + 1
        strides = [tuple(2 if size >> k > 1 else 1 for size in encoder.patch) for k in range(levels)]
        widths = [features * 2**k for k in range(levels)]
        # As MONAI and the paper's code: the hidden state after block depth * k / levels, counted from 0.
        self.taps = [encoder.depth * k // levels for k in range(1, levels)]
        self.stem = UnetrBasicBlock(ndim, encoder.channels, features, 3, 1, NORM, res_block=True)
        self.skips = nn.ModuleList(
            _skip(ndim, encoder.dim, widths[k], [strides[level] for level in range(levels - 1, k - 1, -1)])
            for k in range(1, levels)
        )
        self.ups = nn.ModuleList(
            UnetrUpBlock(
                ndim, encoder.dim if k == levels - 1 else widths[k + 1], widths[k], 3, strides[k], NORM, res_block=True
            )
            for k in range(levels)
        )
        self.out = UnetOutBlock(ndim, features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at full resolution."""
        features = self.encoder(x)
        y = features.map
        for k in range(len(self.ups) - 1, 0, -1):
            y = self.ups[k](y, self.skips[k - 1](features.hidden[self.taps[k - 1]]))
        logits: Tensor = self.out(self.ups[0](y, self.stem(x)))
        return logits


def _skip(ndim: int, dim: int, width: int, strides: list[tuple[int, ...]]) -> nn.Sequential:
    """Bring a token map to level k: one transposed convolution, then one more with a residual block per level."""
    first, *rest = strides
    layers: list[nn.Module] = [_double(ndim, dim, width, first)]
    for stride in rest:
        layers += [_double(ndim, width, width, stride), UnetResBlock(ndim, width, width, 3, 1, NORM)]
    return nn.Sequential(*layers)


def _double(ndim: int, inputs: int, outputs: int, stride: tuple[int, ...]) -> nn.Module:
    layer: nn.Module = get_conv_layer(
        ndim, inputs, outputs, kernel_size=stride, stride=stride, conv_only=True, is_transposed=True
    )
    return layer
