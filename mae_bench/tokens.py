"""Images as grids of patch tokens: what encoders and objectives that work on tokens share."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def patchify(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Cut images into patches.

    Args:
        x: (B, C, *S), every axis a multiple of its patch size.

    Returns:
        (B, L, C * prod(patch)): tokens in row-major order; in a token channel first, then row-major voxels, the order
        of a convolution kernel.
    """
    grid = [size // part for size, part in zip(x.shape[2:], patch, strict=True)]
    axes = range(len(patch))
    cut = x.reshape(*x.shape[:2], *(size for pair in zip(grid, patch, strict=True) for size in pair))
    order = [0, *(2 + 2 * axis for axis in axes), 1, *(3 + 2 * axis for axis in axes)]
    return cut.permute(order).reshape(len(x), math.prod(grid), -1)


def unpatchify(tokens: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Undo `patchify`: (B, L, C * prod(patch)) to (B, C, *S)."""
    channels = tokens.shape[2] // math.prod(patch)
    axes = range(len(patch))
    cut = tokens.reshape(len(tokens), *grid, channels, *patch)
    order = [0, 1 + len(patch), *(place for axis in axes for place in (1 + axis, 2 + len(patch) + axis))]
    return cut.permute(order).reshape(len(tokens), channels, *(g * p for g, p in zip(grid, patch, strict=True)))


def sincos_positions(grid: Sequence[int], dim: int, *, centred: bool = False) -> Tensor:
    """Fixed sine-cosine table, (prod(grid), dim), in row-major order.

    Each axis gets an equal share of the width (the first ones a pair more when it does not divide), sines before
    cosines, frequencies 10000^(-k/n), rows first: as timm in 2-D, as the paper's code in 3-D (PAPER 4).

    centred: less its mean over the grid, with unit deviation. On a small grid most columns hardly vary; what is
    constant in them says nothing of position and swamps the attention while it has yet to be learnt.
    """
    pairs = [dim // 2 // len(grid) + (axis < dim // 2 % len(grid)) for axis in range(len(grid))]
    places = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    columns = []
    for place, count in zip(places, pairs, strict=True):
        angle = place.reshape(-1, 1) * 10000 ** (-torch.arange(count, dtype=torch.float64) / count)
        columns += [angle.sin(), angle.cos()]
    table = torch.cat(columns, dim=1)
    if centred:
        table = table - table.mean(dim=0)
        table = table / table.std()
    return table.float()


def resize_positions(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Interpolate a position table (prod(old), dim) to another grid, linearly along each axis."""
    if tuple(old) == tuple(new):
        return table
    image = table.T.reshape(1, table.shape[1], *old)
    mode = "bilinear" if len(new) == 2 else "trilinear"
    return F.interpolate(image, tuple(new), mode=mode, align_corners=False)[0].flatten(1).T
