"""From a structure map and a texture vector to an image. PAPER 5b."""

import torch
from torch import Tensor, nn

from mae_bench_plugins.pretraining.lsae.layers import Conv, StyledBlock

WIDTHS = (4, 8, 12, 16, 16, 16, 8, 4)  # channels of the blocks, in widths; the last four double the map


class Generator(nn.Module):
    """Eight residual blocks that a texture modulates.

    Args:
        channels: of the image.
        width: 32 published.
        structure: channels of the structure map.
        texture: length of the texture vector.
    """

    def __init__(self, channels: int, width: int, structure: int, texture: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        inputs = structure
        for number, factor in enumerate(WIDTHS):
            self.blocks.append(StyledBlock(inputs, factor * width, texture, double=number >= len(WIDTHS) - 4))
            inputs = factor * width
        self.image = Conv(inputs, channels, 1, activate=False)

    def forward(self, structure: Tensor, texture: Tensor) -> Tensor:
        """(B, structure, h, w) and (B, texture) to an image (B, channels, 16 h, 16 w), not squashed, single precision.

        Noise comes from the global generator.
        """
        x = structure
        for block in self.blocks:
            x = block(x, texture)
        image: Tensor = self.image(x)
        return image.to(torch.float32) if image.dtype in (torch.bfloat16, torch.float16) else image
