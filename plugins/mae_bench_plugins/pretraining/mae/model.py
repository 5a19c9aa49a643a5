"""The masked autoencoder, doing no work whose result is thrown away.

Against the textbook formulation (He et al. 2022, section 3) the loss and its gradients are the same; what is left out:
masked patches are never projected; the decoder stays in shuffled order, since attention does not care; in its first
block a mask token's norm and QKV depend on the position alone, so they are computed once per position and not per
sample; in its last block only masked tokens ask, and only they are normalised, predicted and compared.
"""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_bench.errors import UsageError
from mae_bench.interfaces import Wants
from mae_bench.tokens import patchify, sincos_positions, unpatchify

NORM = partial(nn.LayerNorm, eps=1e-6)
TARGET_EPS = 1e-6


class MaskedAutoencoder(nn.Module):
    """Objective `mae`: mean squared error of masked patches (He et al. 2022, equation in section 3).

    Args:
        encoder: a token encoder (dim, grid, patch, channels, embed, encode, pos_embed); the decoder's positions and
            attention start as the encoder's do (position, attention_gain).
        ratio: share of patches that are masked; int(L * (1 - ratio)) stay visible.
        norm_pix: targets are normalised within each patch, by the unbiased variance.
    """

    decoder_pos_embed: Tensor
    wants = Wants()

    def __init__(
        self, encoder: Any, ratio: float, decoder_dim: int, decoder_depth: int, decoder_heads: int, norm_pix: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.length = encoder.pos_embed.shape[0]
        self.visible = max(1, int(self.length * (1 - ratio)))
        self.norm_pix = norm_pix
        if self.visible >= self.length:
            raise UsageError(f"a mask ratio of {ratio} hides none of {self.length} patches")
        # A sine-cosine table is fixed while reconstructing, as He et al. 2022.
        encoder.pos_embed.requires_grad_(encoder.position == "learned")
        self.decoder_embed = nn.Linear(encoder.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(decoder_dim))
        table = sincos_positions(encoder.grid, decoder_dim, centred=encoder.position == "centred")
        self.register_buffer("decoder_pos_embed", table, persistent=False)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_dim, decoder_heads, qkv_bias=True, norm_layer=NORM) for _ in range(decoder_depth)
        )
        self.decoder_norm = NORM(decoder_dim)
        self.decoder_pred = nn.Linear(decoder_dim, encoder.patch_embed.in_features)
        nn.init.normal_(self.mask_token, std=0.02)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(_init_linear)
        with torch.no_grad():
            for name, parameter in self.decoder_blocks.named_parameters():
                if name.endswith("qkv.weight"):
                    parameter[: 2 * decoder_dim] *= encoder.attention_gain

    def forward(self, batch: Tensor, order: Tensor | None = None) -> dict[str, Tensor]:
        """Mask, encode, decode, compare.

        Args:
            batch: (B, C, *S) images of the encoder's size.
            order: (B, L) permutation of the tokens, the first `visible` of which are seen; random when None.

        Returns:
            `loss`: scalar.
        """
        order = self.random_order(batch) if order is None else order
        patches = _take(patchify(batch, self.encoder.patch), order)
        predicted = self.decode(self.encode(patches, order), order)
        return {"loss": F.mse_loss(predicted.float(), self.target(patches[:, self.visible :]))}

    def random_order(self, batch: Tensor) -> Tensor:
        """A random permutation of the tokens for each image, (B, L): sorting noise, as He et al. 2022."""
        return torch.rand(len(batch), self.length, device=batch.device).argsort(dim=1)

    def encode(self, patches: Tensor, order: Tensor) -> Tensor:
        """Encode the visible ones of shuffled patches (B, L, P): (B, 1 + visible, dim)."""
        shown = slice(None, self.visible)
        encoded: Tensor = self.encoder.encode(self.encoder.embed(patches[:, shown], order[:, shown]))
        return encoded

    def target(self, masked: Tensor) -> Tensor:
        """What masked patches (B, M, P) are compared with.

        (x - mean) / sqrt(unbiased variance + eps), through the layer-norm kernel, which divides by the biased one.
        """
        if not self.norm_pix:
            return masked
        size = masked.shape[-1]
        shrink = (size - 1) / size
        return F.layer_norm(masked, (size,), eps=TARGET_EPS * shrink) * math.sqrt(shrink)

    def decode(self, encoded: Tensor, order: Tensor) -> Tensor:
        """Predict the masked patches, (B, L - visible, P), in the order of `order`."""
        hidden = order[:, self.visible :]
        x = self.decoder_embed(encoded)
        x = x + F.pad(F.embedding(order[:, : self.visible], self.decoder_pos_embed), (0, 0, 1, 0))
        blank = self.mask_token + self.decoder_pos_embed  # (L, D): what a mask token is before the first block
        first, *rest = self.decoder_blocks
        seen = x.shape[1]
        qkv = torch.cat([_qkv(first, x), F.embedding(hidden, _qkv(first, blank))], dim=1)
        x = torch.cat([x, F.embedding(hidden, blank.to(x.dtype))], dim=1)
        if not rest:
            x = _block(first, x, qkv, seen)
        else:
            *middle, last = rest
            x = _block(first, x, qkv)
            for block in middle:
                x = _block(block, x, _qkv(block, x))
            x = _block(last, x, _qkv(last, x), seen)
        predicted: Tensor = self.decoder_pred(self.decoder_norm(x))
        return predicted

    def after_step(self, done: float) -> None:
        """Nothing follows an optimiser step."""

    @torch.no_grad()
    def preview(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input, input with masked patches blank, and completed image, each (B, C, *S).

        Normalised predictions are brought back with the mean and deviation of the true patch.
        """
        order = self.random_order(batch)
        patches = _take(patchify(batch, self.encoder.patch), order)
        hidden = patches[:, self.visible :]
        predicted = self.decode(self.encode(patches, order), order).float()
        if self.norm_pix:
            predicted = predicted * (hidden.var(-1, keepdim=True) + TARGET_EPS).sqrt() + hidden.mean(-1, keepdim=True)
        back = order.argsort(dim=1)
        seen = patches[:, : self.visible]
        images = (
            unpatchify(_take(torch.cat([seen, part], dim=1), back), self.encoder.patch, self.encoder.grid)
            for part in (torch.full_like(hidden, torch.nan), predicted)
        )
        masked, completed = images
        return batch, masked, completed


def _take(tokens: Tensor, order: Tensor) -> Tensor:
    """Tokens (B, L, P) in the order (B, K) of each image."""
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return tokens[rows, order]


def _qkv(block: Any, x: Tensor) -> Tensor:
    """Packed queries, keys and values of (..., D) tokens, before they are divided among heads: (..., 3 D)."""
    packed: Tensor = block.attn.qkv(block.norm1(x))
    return packed


def _block(block: Any, x: Tensor, qkv: Tensor, start: int = 0) -> Tensor:
    """The rest of a pre-norm block for the tokens from `start` on; the others serve as keys and values only."""
    batch, length, dim = x.shape
    heads = block.attn.num_heads
    query, key, value = qkv.view(batch, length, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query[:, :, start:], key, value)
    x = x[:, start:] + block.attn.proj(mixed.transpose(1, 2).reshape(batch, length - start, dim))
    done: Tensor = x + block.mlp(block.norm2(x))
    return done


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
