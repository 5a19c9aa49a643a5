"""The encoder: patches by matrix product, positions that fit any grid, timm's blocks."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_bench.interfaces import Features
from mae_bench.tokens import patchify, resize_positions, sincos_positions

NORM = partial(nn.LayerNorm, eps=1e-6)


class VisionTransformerEncoder(nn.Module):
    """ViT on patches of images of a given size; other sizes are taken with an interpolated position table.

    Args:
        channels: image channels.
        roi: image size in voxels, per axis.
        patch: patch size in voxels, per axis.
        position: how the table starts (sincos, centred, learned); it is trained unless an objective freezes it.
        attention_gain: factor on the initial query and key weights. Xavier on the packed matrix, as He et al. 2022,
            makes attention almost uniform at first; a training of hundreds of steps wants it sharper.
        drop_path: stochastic depth of the last block; earlier blocks get a linear share.
    """

    def __init__(
        self,
        channels: int,
        roi: Sequence[int],
        patch: Sequence[int],
        dim: int,
        depth: int,
        heads: int,
        position: str = "sincos",
        attention_gain: float = 1.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.dim, self.depth = channels, dim, depth
        self.position, self.attention_gain = position, attention_gain
        self.patch = tuple(patch)
        self.grid = tuple(size // part for size, part in zip(roi, patch, strict=True))
        self.patch_embed = nn.Linear(channels * math.prod(patch), dim)
        table = sincos_positions(self.grid, dim, centred=position == "centred")
        if position == "learned":
            nn.init.trunc_normal_(table, std=0.02)
        self.pos_embed = nn.Parameter(table)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.cls_token, std=0.02)
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True, drop_path=rate, norm_layer=NORM) for rate in rates)
        self.norm = NORM(dim)
        self.apply(init_linear)
        with torch.no_grad():
            for name, parameter in self.blocks.named_parameters():
                if name.endswith("qkv.weight"):
                    parameter[: 2 * dim] *= attention_gain

    def embed(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        """Project patches and add their positions.

        Args:
            patches: (B, K, C * prod(patch)) for the tokens in `keep`, or for all.
            keep: (B, K) token indices, or None for all in order.

        Returns:
            (B, K, dim)
        """
        tokens: Tensor = self.patch_embed(patches)
        return tokens + (self.pos_embed if keep is None else F.embedding(keep, self.pos_embed))

    def encode(self, tokens: Tensor) -> Tensor:
        """Run the blocks on (B, K, dim) embedded tokens; gives (B, 1 + K, dim), normalised, class token first."""
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def forward(self, x: Tensor) -> Features:
        """See `Features`. x: (B, C, *S); every axis a multiple of its patch size."""
        grid = tuple(size // part for size, part in zip(x.shape[2:], self.patch, strict=True))
        tokens = self.patch_embed(patchify(x, self.patch)) + resize_positions(self.pos_embed, self.grid, grid)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        hidden = []
        for block in self.blocks:
            tokens = block(tokens)
            hidden.append(self._as_map(tokens, grid))
        tokens = self.norm(tokens)
        return Features(tokens[:, 0], self._as_map(tokens, grid), tuple(hidden))

    def _as_map(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), self.dim, *grid)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters from input to output: embedding with tokens and positions, each block, final norm."""
        first = [*self.patch_embed.parameters(), self.pos_embed, self.cls_token]
        return [first, *(list(block.parameters()) for block in self.blocks), list(self.norm.parameters())]


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as He et al. 2022 (appendix A.1)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
