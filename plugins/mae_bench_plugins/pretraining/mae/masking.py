"""Which patches are hidden: an order of the tokens, the first of which are seen.

The same number is seen of every image, so that a batch stays one tensor and nothing waits for the device.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor


def random_order(patches: Tensor) -> Tensor:
    """A random permutation for each image, (B, L), by sorting noise (He et al. 2022). patches: (B, L, P)."""
    return torch.rand(patches.shape[:2], device=patches.device).argsort(dim=1)


def block_order(patches: Tensor, grid: Sequence[int], block: int, visible: int) -> Tensor:
    """Whole blocks of `block` tokens per axis are seen or hidden together, as far as `visible` allows.

    Neighbours give a hidden patch away less. What is hidden is in random order among itself.
    """
    batch = len(patches)
    coarse = [-(-size // block) for size in grid]
    noise = torch.rand(batch, *coarse, device=patches.device)
    for axis, size in enumerate(grid, 1):
        noise = noise.repeat_interleave(block, dim=axis).narrow(axis, 0, size)
    # A hair of noise of its own per token decides which part of the last block is seen.
    order = (noise.flatten(1) + 1e-6 * torch.rand(patches.shape[:2], device=patches.device)).argsort(dim=1)
    return shuffle_hidden(order, visible)


def foreground_order(patches: Tensor, visible: int) -> Tensor:
    """The mask ratio holds within the body and within the air alike, instead of on the average over both."""
    inside = foreground(patches)
    noise = torch.rand(inside.shape, device=patches.device)
    # Rank of each token among its own kind, as a share of that kind: both kinds are seen in one proportion.
    ranks = torch.empty_like(noise)
    for kind in (inside, ~inside):
        place = noise.masked_fill(~kind, 2.0).argsort(dim=1).argsort(dim=1)
        count = kind.sum(dim=1, keepdim=True).clamp(min=1)
        ranks = torch.where(kind, (place + torch.rand_like(noise)) / count, ranks)
    return shuffle_hidden(ranks.argsort(dim=1), visible)


def foreground(patches: Tensor) -> Tensor:
    """Which patches of (B, L, P) show anything: (B, L). Air is exactly constant in prepared images."""
    return patches.amax(dim=-1) > patches.amin(dim=-1)


def shuffle_hidden(order: Tensor, visible: int) -> Tensor:
    """The same seen tokens first, the hidden ones in random order: any number of them is a random sample."""
    hidden = order[:, visible:]
    mixed = torch.rand(hidden.shape, device=order.device).argsort(dim=1)
    return torch.cat([order[:, :visible], hidden.gather(1, mixed)], dim=1)


def strategy(name: str, grid: Sequence[int], block: int, visible: int) -> partial[Tensor]:
    """The function from patches (B, L, P) to an order (B, L) that an option names."""
    return {
        "random": partial(random_order),
        "block": partial(block_order, grid=grid, block=block, visible=visible),
        "foreground": partial(foreground_order, visible=visible),
    }[name]
