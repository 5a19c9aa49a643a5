"""MoCo v3 (Chen, Xie and He 2021): each view predicts the other's key among the keys of the batch."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.errors import UsageError
from mae_bench.interfaces import Wants
from mae_bench_plugins.pretraining.moco.batch_stats import has_batch_norm
from mae_bench_plugins.pretraining.moco.blur import random_blur
from mae_bench_plugins.pretraining.moco.keys import follow, gather, rank_and_world, slow_copy, unit


class MoCoV3(nn.Module):
    """Objective `moco` without a queue.

    An encoder of tokens keeps its random patch embedding, which steadies the training (section 4.3), and its positions
    unless they are learned. Batch norms of projector and predictor see one view at a time, and under NCCL all
    processes (SyncBatchNorm); on CPUs each process has its own.

    Args:
        encoder: anything with `dim` and `pooled` features; it makes the queries, and is what is kept.
        dim: width of queries and keys.
        hidden: hidden width of projector and predictor.
        momentum: of the key encoder at first; it rises to 1 by a cosine.
        temperature: divides the similarities.
        blur: probability that a view is blurred.
    """

    wants = Wants(views=2)

    def __init__(self, encoder: Any, dim: int, hidden: int, momentum: float, temperature: float, blur: float) -> None:
        super().__init__()
        self.momentum, self.temperature, self.blur = momentum, temperature, blur
        self.one_by_one = has_batch_norm(encoder)
        if hasattr(encoder, "embed") and hasattr(encoder, "encode"):
            encoder.patch_embed.requires_grad_(False)
            encoder.pos_embed.requires_grad_(encoder.position == "learned")
        self.synchronised = rank_and_world()[1] > 1 and dist.get_backend() == "nccl"
        self.encoder = encoder
        self.projector = self._mlp(encoder.dim, hidden, hidden, dim)
        self.predictor = self._mlp(dim, hidden, dim)
        self.key_encoder = slow_copy(encoder)
        self.key_projector = slow_copy(self.projector)

    def _mlp(self, *widths: int) -> nn.Module:
        """Linear layers without biases, each with a batch norm; the last one has no scale, shift and ReLU."""
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths), 2):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after, affine=number < len(widths))]
            layers += [nn.ReLU(inplace=True)] if number < len(widths) else []
        mlp = nn.Sequential(*layers)
        if self.synchronised:
            return nn.SyncBatchNorm.convert_sync_batchnorm(mlp)  # type: ignore[no-untyped-call, no-any-return]
        return mlp

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Predict each view's key from the other view.

        Args:
            batch: (B, 2, C, *roi).

        Returns:
            `loss`: scalar, the sum over both directions (algorithm 1).

        Raises:
            UsageError: there is nothing to compare with.
        """
        if self.training and len(batch) < 2 and not self.synchronised:
            raise UsageError(
                "MoCo v3 compares the crops of a batch, and one crop per part and process is none: "
                "raise --set pretrain.batch=... or lower pretrain.accumulate"
            )
        images = batch.transpose(0, 1).flatten(0, 1)  # all first views, then all second ones
        if self.blur and self.training:
            images = random_blur(images, self.blur)
        queries = self.queries(images)
        keys = gather(self.keys(images).view(2, len(batch), -1).transpose(0, 1)).transpose(0, 1)
        first, second = queries.chunk(2)
        return {"loss": self.contrast(first, keys[1]) + self.contrast(second, keys[0])}

    def queries(self, images: Tensor) -> Tensor:
        """(2B, C, *roi), views one after the other, to (2B, dim) of length 1, with gradient."""
        features = self._features(self.encoder, images)
        return unit(torch.cat([self.predictor(self.projector(view)) for view in features.chunk(2)]))

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        """(2B, C, *roi), views one after the other, to (2B, dim) of length 1."""
        features = self._features(self.key_encoder, images)
        return unit(torch.cat([self.key_projector(view) for view in features.chunk(2)]))

    def _features(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """Both views in one pass, unless samples see each other in the encoder."""
        if self.one_by_one:
            return torch.cat([encoder(view).pooled for view in images.chunk(2)])
        pooled: Tensor = encoder(images).pooled
        return pooled

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """2T times the mean cross-entropy of finding each query's key among those of all processes.

        Args:
            queries: (B, dim) of this process.
            keys: (world * B, dim), processes one after the other.
        """
        with torch.autocast(queries.device.type, enabled=False):
            logits = queries @ keys.t() / self.temperature
            places = torch.arange(len(queries), device=logits.device) + rank_and_world()[0] * len(queries)
            return 2 * self.temperature * F.cross_entropy(logits, places)

    def momentum_at(self, done: float) -> float:
        """Of the key encoder when a share `done` of the training is done: from `momentum` to 1 by half a cosine."""
        return 1 - (1 - self.momentum) * (1 + math.cos(math.pi * done)) / 2

    def after_step(self, done: float) -> None:
        """Let the key encoder follow."""
        momentum = self.momentum_at(done)
        follow(self.key_encoder, self.encoder, momentum)
        follow(self.key_projector, self.projector, momentum)

    def preview(self, batch: Tensor) -> None:
        """There is no picture of it."""
