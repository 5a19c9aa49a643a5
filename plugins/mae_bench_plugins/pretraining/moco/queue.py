"""The negatives of MoCo v2: a ring of the latest keys that never makes the host wait for the device."""

import torch
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """The last `size` keys. All of it is in the state dict, so a continued run sees the same negatives.

    keys: (size, dim). pointer: the place of the next key. filled: how many places hold a key. The authors start with
    random vectors in the places that are still empty; here those are no negatives at all.
    """

    keys: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Put (N, dim) keys over the oldest ones. N may be anything: the ring wraps, of more than `size` the last stay.

        The authors want the batch to divide the queue; nothing here does.
        """
        size, count = len(self.keys), len(keys)
        kept = min(count, size)
        places = torch.arange(count - kept, count, device=keys.device)
        self.keys.index_copy_(0, (places + self.pointer) % size, keys[count - kept :].to(self.keys.dtype))
        self.pointer.add_(count).remainder_(size)
        self.filled.add_(count).clamp_(max=size)

    def similarities(self, queries: Tensor, temperature: float) -> Tensor:
        """(B, dim) queries with all keys, divided by the temperature: (B, size); minus infinity for empty places."""
        size = len(self.keys)
        empty = torch.arange(size, device=queries.device) >= self.filled
        offset = torch.zeros(size, dtype=queries.dtype, device=queries.device).masked_fill(empty, -torch.inf)
        return torch.addmm(offset, queries, self.keys.to(queries.dtype).t(), alpha=1 / temperature)
