"""What all masked image models share: which patches are hidden, what they are compared with, how it is shown."""

import math
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.errors import UsageError
from mae_bench.interfaces import Wants
from mae_bench.tokens import patchify, unpatchify
from mae_bench_plugins.pretraining.mae.masking import foreground, strategy

NORM = partial(nn.LayerNorm, eps=1e-6)
TARGET_EPS = 1e-6
Normalise = Literal["none", "patch", "channel"]


class Masked(nn.Module):
    """Hides patches of an image and learns to predict them; what encodes and predicts is up to the subclass.

    Args:
        encoder: a token encoder (dim, grid, patch, channels, embed, encode, pos_embed, position).
        ratio: share of patches that are masked; int(L * (1 - ratio)) stay visible.
        normalise: targets normalised within each patch over all its channels, or within each channel of it.
        masking: random, block or foreground; the last also counts only patches of the body in the loss.
        block: tokens per axis of a block.
    """

    wants = Wants()
    absolute = False  # mean absolute instead of squared error

    def __init__(
        self, encoder: Any, ratio: float, normalise: Normalise, masking: str = "random", block: int = 2
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.length = encoder.pos_embed.shape[0]
        self.visible = max(1, int(self.length * (1 - ratio)))
        if self.visible >= self.length:
            raise UsageError(f"a mask ratio of {ratio} hides none of {self.length} patches")
        self.normalise, self.body_only = normalise, masking == "foreground"
        self.draw = strategy(masking, encoder.grid, block, self.visible)
        # A sine-cosine table is fixed while reconstructing, as He et al. 2022.
        encoder.pos_embed.requires_grad_(encoder.position == "learned")

    def predict(self, patches: Tensor, order: Tensor) -> Tensor:
        """Predict from shuffled patches (B, L, P), of which only the first `visible` may be looked at.

        Returns:
            (B, K, P): the first K masked patches in the order of `order`; all of them in evaluation.
        """
        raise NotImplementedError

    def forward(self, batch: Tensor, order: Tensor | None = None) -> dict[str, Tensor]:
        """Mask, encode, decode, compare.

        Args:
            batch: (B, C, *S) images of the encoder's size.
            order: (B, L) permutation of the tokens, the first `visible` of which are seen; drawn when None.

        Returns:
            `loss`: scalar.
        """
        patches = patchify(batch, self.encoder.patch)
        order = self.draw(patches) if order is None else order
        patches = take(patches, order)
        predicted = self.predict(patches, order).float()
        hidden = patches[:, self.visible : self.visible + predicted.shape[1]]
        target = self.target(hidden)
        if not self.body_only:
            return {"loss": (F.l1_loss if self.absolute else F.mse_loss)(predicted, target)}
        gap = predicted - target
        each = (gap.abs() if self.absolute else gap.square()).mean(dim=-1)
        inside = foreground(hidden)
        return {"loss": (each * inside).sum() / inside.sum().clamp(min=1)}

    def target(self, masked: Tensor) -> Tensor:
        """What masked patches (B, M, P) are compared with.

        (x - mean) / sqrt(unbiased variance + eps), through the layer-norm kernel, which divides by the biased one.
        """
        if self.normalise == "none":
            return masked
        parts = self.encoder.channels if self.normalise == "channel" else 1
        size = masked.shape[-1] // parts
        shrink = (size - 1) / size
        normal = F.layer_norm(masked.reshape(*masked.shape[:-1], parts, size), (size,), eps=TARGET_EPS * shrink)
        return normal.flatten(-2) * math.sqrt(shrink)

    def after_step(self, done: float) -> None:
        """Nothing follows an optimiser step."""

    @torch.no_grad()
    def preview(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input, input with masked patches blank, and completed image, each (B, C, *S).

        Normalised predictions are brought back with the mean and deviation of the true patch.
        """
        patches = patchify(batch, self.encoder.patch)
        order = self.draw(patches)
        patches = take(patches, order)
        hidden = patches[:, self.visible :]
        predicted = self.predict(patches, order).float()
        if self.normalise != "none":
            parts = self.encoder.channels if self.normalise == "channel" else 1
            cut = hidden.reshape(*hidden.shape[:-1], parts, -1)
            deviation = (cut.var(-1, keepdim=True) + TARGET_EPS).sqrt()
            predicted = (predicted.reshape(cut.shape) * deviation + cut.mean(-1, keepdim=True)).flatten(-2)
        back = order.argsort(dim=1)
        seen = patches[:, : self.visible]
        masked, completed = (
            unpatchify(take(torch.cat([seen, part], dim=1), back), self.encoder.patch, self.encoder.grid)
            for part in (torch.full_like(hidden, torch.nan), predicted)
        )
        return batch, masked, completed


def take(tokens: Tensor, order: Tensor) -> Tensor:
    """Tokens (B, L, P) in the order (B, K) of each image."""
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return tokens[rows, order]


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases (He et al. 2022, appendix A.1)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
