"""Cheaper ways to predict masked patches, as options: what they cost in quality is a question for the grid."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.tokens import sincos_positions
from mae_bench_plugins.pretraining.mae.masked import NORM, Masked, init_linear


class CrossBlock(nn.Module):
    """Masked tokens ask the visible ones, and nobody else; then an MLP. Pre-norm, as the encoder's blocks."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = NORM(dim), NORM(dim)
        self.query, self.key_value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x: (B, K, dim) masked tokens; seen: (B, 1 + visible, dim), normalised."""
        query = self.query(self.norm1(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        done: Tensor = x + self.mlp(self.norm2(x))
        return done


class CrossDecoded(Masked):
    """Decodes by cross-attention alone, and in training only a share of the masked tokens (Fu et al. 2024, CrossMAE).

    Masked tokens do not see one another, so leaving some out changes nothing for the rest. Their weighted mixture of
    encoder blocks is left out: the decoder reads the last one.
    """

    pos: Tensor

    def __init__(
        self, encoder: Any, *, decoder_dim: int, decoder_depth: int, decoder_heads: int, decoded: float, **masked: Any
    ) -> None:
        super().__init__(encoder, **masked)
        self.decoded = max(1, math.ceil((self.length - self.visible) * decoded))
        self.embed = nn.Linear(encoder.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(decoder_dim).normal_(std=0.02))
        table = sincos_positions(encoder.grid, decoder_dim, centred=encoder.position == "centred")
        self.register_buffer("pos", table, persistent=False)
        self.blocks = nn.ModuleList(CrossBlock(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.norm = NORM(decoder_dim)
        self.pred = nn.Linear(decoder_dim, encoder.patch_embed.in_features)
        for part in (self.embed, self.blocks, self.pred):
            part.apply(init_linear)

    def predict(self, patches: Tensor, order: Tensor) -> Tensor:
        """In training the first `decoded` masked patches, which are random ones; in evaluation all."""
        shown = slice(None, self.visible)
        hidden = order[:, self.visible :][:, : self.decoded if self.training else None]
        encoded = self.encoder.encode(self.encoder.embed(patches[:, shown], order[:, shown]))
        places = F.embedding(order[:, shown], self.pos)
        seen = self.embed(encoded) + F.pad(places, (0, 0, 1, 0))
        x = self.mask_token + F.embedding(hidden, self.pos)
        for block in self.blocks:
            x = block(x, seen)
        predicted: Tensor = self.pred(self.norm(x))
        return predicted


class Simple(Masked):
    """The encoder itself completes mask tokens; one linear layer and the absolute error (Xie et al. 2022, SimMIM)."""

    absolute = True

    def __init__(self, encoder: Any, **masked: Any) -> None:
        super().__init__(encoder, **masked)
        self.mask_token = nn.Parameter(torch.empty(encoder.dim).normal_(std=0.02))
        self.pred = nn.Linear(encoder.dim, encoder.patch_embed.in_features)
        init_linear(self.pred)

    def predict(self, patches: Tensor, order: Tensor) -> Tensor:
        """Every masked patch."""
        shown, hidden = order[:, : self.visible], order[:, self.visible :]
        seen = self.encoder.embed(patches[:, : self.visible], shown)
        blank = (self.mask_token + F.embedding(hidden, self.encoder.pos_embed)).to(seen.dtype)
        encoded = self.encoder.encode(torch.cat([seen, blank], dim=1))
        predicted: Tensor = self.pred(encoded[:, 1 + self.visible :])
        return predicted
