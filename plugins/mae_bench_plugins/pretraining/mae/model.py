"""The masked autoencoder, doing no work whose result is thrown away.

Against the textbook formulation (He et al. 2022, section 3) the loss and its gradients are the same; what is left out:
masked patches are never projected; the decoder stays in shuffled order, since attention does not care; in its first
block a mask token's norm and QKV depend on the position alone, so they are computed once per position and not per
sample; in its last block only masked tokens ask, and only they are normalised, predicted and compared.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_bench.tokens import sincos_positions
from mae_bench_plugins.pretraining.mae.masked import NORM, Masked, init_linear


class MaskedAutoencoder(Masked):
    """Objective `mae`: mean squared error of masked patches (He et al. 2022, equation in section 3).

    Args:
        encoder: as for `Masked`; the decoder's positions and attention start as the encoder's do (position,
            attention_gain).
        decoder_dim, decoder_depth, decoder_heads: of the decoder's blocks.
        masked: as for `Masked`.
    """

    decoder_pos_embed: Tensor

    def __init__(
        self, encoder: Any, *, decoder_dim: int, decoder_depth: int, decoder_heads: int, **masked: Any
    ) -> None:
        super().__init__(encoder, **masked)
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
            part.apply(init_linear)
        with torch.no_grad():
            for name, parameter in self.decoder_blocks.named_parameters():
                if name.endswith("qkv.weight"):
                    parameter[: 2 * decoder_dim] *= encoder.attention_gain

    def predict(self, patches: Tensor, order: Tensor) -> Tensor:
        """Every masked patch."""
        return self.decode(self.encode(patches, order), order)

    def encode(self, patches: Tensor, order: Tensor) -> Tensor:
        """Encode the visible ones of shuffled patches (B, L, P): (B, 1 + visible, dim)."""
        shown = slice(None, self.visible)
        encoded: Tensor = self.encoder.encode(self.encoder.embed(patches[:, shown], order[:, shown]))
        return encoded

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
