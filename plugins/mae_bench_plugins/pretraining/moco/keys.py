"""The slow side of momentum contrast: copies that follow the trained networks, and keys seen by all processes."""

from copy import deepcopy
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def slow_copy(module: Module) -> Module:
    """A copy that learns by `follow` alone: its parameters get no gradient."""
    return deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Exponential moving average, in place: slow = momentum * slow + (1 - momentum) * fast (He et al. 2020, eq. 2).

    Frozen parameters are the same in both and are left out. Running statistics are each network's own.
    """
    pairs = [(s, f) for s, f in zip(slow.parameters(), fast.parameters(), strict=True) if f.requires_grad]
    if pairs:
        torch._foreach_lerp_([s for s, _ in pairs], [f for _, f in pairs], 1 - momentum)


def unit(vectors: Tensor) -> Tensor:
    """(..., D) vectors of any precision as float32 (or float64) vectors of length 1."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def rank_and_world() -> tuple[int, int]:
    """Number of this process and of all: (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(keys: Tensor) -> Tensor:
    """(B, ...) keys of each process, one after the other: (world * B, ...), the same on all. Without gradient."""
    world = rank_and_world()[1]
    if world == 1:
        return keys
    parts = [torch.empty_like(keys) for _ in range(world)]
    dist.all_gather(parts, keys.contiguous())
    return torch.cat(parts)
