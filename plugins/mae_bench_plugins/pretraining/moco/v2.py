"""MoCo v2 (He et al. 2020; Chen et al. 2020): a query finds its key among a queue of keys of earlier steps."""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.interfaces import Wants
from mae_bench_plugins.pretraining.moco.batch_stats import GroupedBatchNorm, count_groups, has_batch_norm
from mae_bench_plugins.pretraining.moco.blur import random_blur
from mae_bench_plugins.pretraining.moco.keys import follow, gather, slow_copy, unit
from mae_bench_plugins.pretraining.moco.queue import KeyQueue


class MoCoV2(nn.Module):
    """Objective `moco` with a queue.

    A step's keys enter the queue after its optimiser step, all at once: however a batch is accumulated, and on however
    many processes, each query of a step sees the same negatives, and all processes have the same queue.

    Args:
        encoder: anything with `dim` and `pooled` features; it makes the queries, and is what is kept.
        dim: width of queries and keys.
        hidden: hidden width of the projector; None: that of the features.
        queue: keys that are kept.
        momentum: of the key encoder.
        temperature: divides the similarities.
        group_queries: the queries' batch norms see groups too, as on several GPUs.
        group: samples that share the statistics of a batch norm.
        blur: probability that a view is blurred.
    """

    wants = Wants(views=2)

    def __init__(
        self,
        encoder: Any,
        dim: int,
        hidden: int | None,
        queue: int,
        momentum: float,
        temperature: float,
        group_queries: bool,
        group: int,
        blur: float,
    ) -> None:
        super().__init__()
        self.momentum, self.temperature, self.blur = momentum, temperature, blur
        self.group_queries, self.group = group_queries, group
        self.grouped = has_batch_norm(encoder)
        self.encoder = encoder
        width = hidden or encoder.dim
        self.projector = nn.Sequential(nn.Linear(encoder.dim, width), nn.ReLU(), nn.Linear(width, dim))
        self.key_encoder = slow_copy(encoder)
        self.key_projector = slow_copy(self.projector)
        self.queue = KeyQueue(queue, dim)
        self._fresh: list[Tensor] = []  # keys of this step so far; none between steps, so in no checkpoint

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Compare the first views, as queries, with the second ones and the queue.

        Args:
            batch: (B, 2, C, *roi).

        Returns:
            `loss`: InfoNCE (He et al. 2020, eq. 1), scalar.

        Raises:
            UsageError: the batch cannot be cut into groups for batch norms.
        """
        if self.blur and self.training:
            batch = random_blur(batch.flatten(0, 1), self.blur).view_as(batch)
        keys = self.keys(batch[:, 1])
        loss = self.contrast(self.queries(batch[:, 0]), keys)
        if self.training:
            self._fresh.append(keys)
        return {"loss": loss}

    def queries(self, images: Tensor) -> Tensor:
        """(B, C, *roi) to (B, dim) of length 1, with gradient."""
        groups = self._groups(images) if self.group_queries else 1
        with GroupedBatchNorm(groups) if groups > 1 else nullcontext():
            features = self.encoder(images).pooled
        return unit(self.projector(features))

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        """(B, C, *roi) to (B, dim) of length 1; batch norms see groups of a batch in a new order."""
        groups = self._groups(images)
        if groups > 1:
            order = torch.randperm(len(images), device=images.device)
            with GroupedBatchNorm(groups):
                shuffled = self.key_encoder(images[order]).pooled
            features = torch.empty_like(shuffled).index_copy_(0, order, shuffled)
        else:
            features = self.key_encoder(images).pooled
        return unit(self.key_projector(features))

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Mean cross-entropy of finding each query's key, which is in place 0, among the queue's."""
        with torch.autocast(queries.device.type, enabled=False):
            positive = (queries * keys).sum(dim=1, keepdim=True) / self.temperature
            logits = torch.cat([positive, self.queue.similarities(queries, self.temperature)], dim=1)
            return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))

    def _groups(self, images: Tensor) -> int:
        return count_groups(len(images), self.group) if self.grouped and self.training else 1

    def after_step(self, done: float) -> None:
        """Put the step's keys, of all processes, into the queue; let the key encoder follow."""
        if self._fresh:
            self.queue.push(gather(torch.cat(self._fresh)))
            self._fresh.clear()
        follow(self.key_encoder, self.encoder, self.momentum)
        follow(self.key_projector, self.projector, self.momentum)

    def preview(self, batch: Tensor) -> None:
        """There is no picture of it."""
