"""Linear probe (He et al. 2022, appendix A.2): the encoder is frozen, features are standardised, one layer learns."""

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.task import Task
from mae_bench.tokens import unpatchify


class Standardise(nn.BatchNorm1d):
    """Batch statistics while training, running ones afterwards; also for a batch of one value, which has no spread."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, dim[, L]) standardised per feature."""
        if input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(input)


class LinearProbe(nn.Module):
    """x: (B, C, *roi) gives logits (B, outputs) or, for segmentation, (B, outputs, *roi): each token answers for its
    own voxels.
    """

    def __init__(self, encoder: Any, task: Task) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.dense = task.kind == "segmentation"
        voxels = math.prod(encoder.patch) if self.dense else 1
        # Statistics without learnt scale, so that methods are compared on features of one magnitude.
        self.norm = Standardise(encoder.dim, affine=False)
        self.layer = nn.Linear(encoder.dim, task.outputs * voxels)

    def train(self, mode: bool = True) -> Self:
        """The encoder stays in evaluation mode: a probe changes nothing in it."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        with torch.no_grad():
            features = self.encoder(x)
        if not self.dense:
            logits: Tensor = self.layer(self.norm(features.pooled))
            return logits
        grid = features.map.shape[2:]
        tokens = self.norm(features.map.flatten(2)).transpose(1, 2)
        return unpatchify(self.layer(tokens), self.encoder.patch, grid)
