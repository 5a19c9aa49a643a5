"""Gaussian blur of some images of a batch, on the device (SimCLR's, which MoCo v2 takes over)."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = (0.1, 2.0)  # voxels, from and to (Chen et al. 2020, appendix A)
RADIUS = 6  # three deviations of the strongest


def random_blur(images: Tensor, probability: float) -> Tensor:
    """Blur each of (N, C, *S) images with `probability`, by a deviation drawn evenly from SIGMA, alike on all axes.

    Beyond the border the image goes on as its last voxel. float32, also under autocast.
    """
    count = len(images)
    sigma = torch.empty(count, device=images.device).uniform_(*SIGMA)
    return blur(images, torch.where(torch.rand(count, device=images.device) < probability, sigma, 0))


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur (N, C, *S) images, each by its own of (N,) deviations in voxels; 0 leaves it as it is."""
    count, channels, *size = images.shape
    taps = torch.arange(-RADIUS, RADIUS + 1, device=images.device)
    kernel = torch.softmax(-0.5 * (taps / sigma.clamp(min=1e-3)[:, None]).square(), dim=1)
    kernel = kernel.repeat_interleave(channels, dim=0)
    with torch.autocast(images.device.type, enabled=False):
        x = images.float().reshape(1, count * channels, *size)
        for axis in range(len(size)):
            pads, shape = [0] * (2 * len(size)), [1] * len(size)
            pads[2 * (len(size) - 1 - axis)] = pads[2 * (len(size) - 1 - axis) + 1] = RADIUS
            shape[axis] = len(taps)
            convolve = F.conv2d if len(size) == 2 else F.conv3d
            weight = kernel.reshape(count * channels, 1, *shape)
            x = convolve(F.pad(x, pads, mode="replicate"), weight, groups=count * channels)
    return x.reshape(images.shape)
