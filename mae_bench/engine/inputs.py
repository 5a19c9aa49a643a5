"""The last steps from a stored crop to network input, on the device."""

import torch
from torch import Tensor, nn

from mae_bench.data.crops import Batch
from mae_bench.task import Protocol


class Inputs(nn.Module):
    """Widens crops to single precision, normalises each by its own statistics if the protocol says so, applies gains.

    batch.images (B, [V,] C, *roi) gives the same shape in float32.
    """

    def __init__(self, protocol: Protocol, ndim: int) -> None:
        super().__init__()
        self.ndim = ndim
        self.zscore = protocol.crop_zscore
        self.air = protocol.preprocessing.intensity.zero_is_air

    def forward(self, batch: Batch) -> Tensor:
        """Network input."""
        images: Tensor = torch.as_tensor(batch.images).float()
        if self.zscore:
            images = crop_zscore(images, self.ndim)
        if batch.gain is None:
            return images
        gain = torch.as_tensor(batch.gain)
        scale, shift = gain.reshape(*gain.shape[:-1], 2, *[1] * (images.ndim - gain.ndim + 1)).unbind(gain.ndim - 1)
        changed = torch.addcmul(shift, images, scale)
        # Zeros are outside the body: they stay what the network knows as nothing.
        return torch.where(images != 0, changed, 0) if self.air else changed


def crop_zscore(images: Tensor, ndim: int) -> Tensor:
    """Normalise each channel of (..., C, *roi) over its own non-zero voxels (the paper's training crops; PAPER D7)."""
    axes = tuple(range(-ndim, 0))
    inside = images != 0
    count = inside.sum(axes, keepdim=True).clamp(min=1)
    mean = images.sum(axes, keepdim=True) / count
    centred = torch.where(inside, images - mean, 0)
    deviation = (centred.square().sum(axes, keepdim=True) / count).sqrt()
    return centred / torch.where(deviation > 0, deviation, 1)
