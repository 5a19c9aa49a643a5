"""Where LSAE looks: random places of a mask, and square patches around them. PAPER 5b.

All draws come from the global generator of the device, for all images at once, and the host never waits.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIDES = (1 / 16, 1 / 4)  # of a patch, as shares of the image's shorter side
TURN = math.radians(60)  # largest rotation


def inside(masks: Tensor | None, images: Tensor) -> Tensor:
    """Where the lungs are, (B, H, W) bool: masks (B, H, W) other than 0; where a mask is empty, the central half.

    The central half is half as high and half as wide as the image. None: no image has a mask.
    """
    height, width = images.shape[2:]
    central = torch.zeros(height, width, dtype=torch.bool, device=images.device)
    central[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    if masks is None:
        return central.expand(len(images), -1, -1)
    lungs = masks > 0
    return torch.where(lungs.flatten(1).any(dim=1)[:, None, None], lungs, central)


def draw_places(region: Tensor, count: int) -> Tensor:
    """Places (B, count) of a region (B, H, W), as indices into H * W: uniform, with replacement.

    Anywhere, if the region is empty.
    """
    flat = region.flatten(1)
    ranks = torch.where(flat.any(dim=1, keepdim=True), flat, True).cumsum(dim=1)
    sizes = ranks[:, -1:]
    # The k-th place of a region is the first that k + 1 places of it lead up to.
    chosen = (torch.rand(len(flat), count, device=flat.device) * sizes).long()
    return torch.searchsorted(ranks, chosen.clamp(max=sizes - 1), right=True)


def cut_patches(images: Tensor, places: Tensor, size: int) -> Tensor:
    """Square patches of images (B, C, H, W) around places (B, N), as (B, N, C, size, size) in single precision.

    A patch is drawn as a square of 1/16 to 1/4 of the image, moved inwards where it would cross the border. What is
    turned by up to 60 degrees is the largest square that then still lies within it.
    """
    batch, height, width = len(images), *images.shape[2:]
    count = places.shape[1]
    device = images.device
    low, high = SIDES
    half = (low + (high - low) * torch.rand(batch, count, device=device)) * (min(height, width) / 2)
    angle = (2 * torch.rand(batch, count, device=device) - 1) * TURN
    row, column = places // width + 0.5, places % width + 0.5
    row, column = (
        torch.minimum(torch.maximum(centre, half), length - half) for centre, length in ((row, height), (column, width))
    )
    cosine, sine = angle.cos(), angle.sin()
    reach = half / (cosine + sine.abs())
    cosine, sine = (cosine * reach)[..., None, None], (sine * reach)[..., None, None]
    steps = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    down, across = steps[:, None], steps
    rows = row[..., None, None] + cosine * down + sine * across
    columns = column[..., None, None] - sine * down + cosine * across
    grid = torch.stack([columns * (2 / width) - 1, rows * (2 / height) - 1], dim=-1)  # (B, N, size, size, 2)
    # All patches of an image are one tall sampling grid: the image is not copied for each.
    cut = F.grid_sample(images.to(grid.dtype), grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return cut.reshape(*cut.shape[:2], count, size, size).transpose(1, 2)
