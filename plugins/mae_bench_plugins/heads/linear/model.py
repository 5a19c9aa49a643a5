"""Linear probe (He et al. 2022, appendix A.2): the encoder is frozen, features are standardised, one layer learns."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.task import Task


class Standardise(nn.BatchNorm1d):
    """Batch statistics while training, running ones afterwards; also for a batch of one value, which has no spread."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, dim[, L]) standardised per feature."""
        if input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(input)


class LinearProbe(nn.Module):
    """x: (B, C, *roi) gives logits (B, outputs) or, for segmentation, (B, outputs, *roi).

    For segmentation one layer serves all places of the map, and its logits are interpolated linearly to full size
    (Oquab et al. 2023, section 7.4): its size does not depend on the patch.
    """

    def __init__(self, encoder: Any, task: Task) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.dense = task.kind == "segmentation"
        # Statistics without learnt scale, so that methods are compared on features of one magnitude.
        self.norm = Standardise(encoder.dim, affine=False)
        self.layer = nn.Linear(encoder.dim, task.outputs)

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
        places = self.layer(self.norm(features.map.flatten(2)).transpose(1, 2)).transpose(1, 2)
        coarse = places.reshape(*places.shape[:2], *features.map.shape[2:])
        return F.interpolate(coarse, x.shape[2:], mode="bilinear" if x.ndim == 4 else "trilinear")
