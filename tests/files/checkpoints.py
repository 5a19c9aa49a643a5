"""Encoder checkpoints in the layouts of other projects: from their own networks, or in the shapes described."""

import argparse
import itertools
import math
from typing import Any

import numpy as np
import torch
from monai.networks import nets
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

State = dict[str, Tensor]
DIM, DEPTH, HEADS = 48, 3, 3


def uneven(module: nn.Module, seed: int = 3) -> Any:
    """The module with weights that hide no mistake: nothing zero, nothing one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def timm_vit(**options: Any) -> Any:
    """A network of timm for 32 x 24 pixels in patches of 8, with a classifier."""
    return uneven(
        VisionTransformer(
            img_size=options.pop("img_size", (32, 24)), patch_size=8, embed_dim=DIM, depth=DEPTH, num_heads=HEADS,
            num_classes=5, **options,
        )
    )  # fmt: skip


def reference_mae() -> dict[str, Any]:
    """The reference MAE's checkpoint: timm's names and a decoder, under `model`, beside its arguments."""
    state = timm_vit(img_size=32).state_dict()
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    state |= {"mask_token": torch.randn(1, 1, 24), "decoder_pos_embed": torch.randn(1, 17, 24)}
    state |= {"decoder_blocks.0.attn.qkv.weight": torch.randn(72, 24), "decoder_pred.weight": torch.randn(192, 24)}
    return {"model": state, "epoch": 7, "args": argparse.Namespace(lr=1e-3)}


def fixed_table(grid: tuple[int, int, int], dim: int) -> Tensor:
    """SelfMedMAE's positions, (1, L, dim), from the closed form: sines then cosines of h, then of w, then of d."""
    rows = []
    for place in itertools.product(*map(range, grid)):
        angles = [[at / 10000 ** (6 * k / dim) for k in range(dim // 6)] for at in place]
        rows.append([wave(a) for axis in angles for wave in (math.sin, math.cos) for a in axis])
    return torch.tensor(rows)[None]


def selfmedmae(grid: tuple[int, int, int], table: Tensor | None) -> dict[str, Any]:
    """SelfMedMAE's 3-D checkpoint (PAPER 4): timm's names under `encoder.`, patches as Conv3d, a table beside it."""
    inner = {
        name: value
        for name, value in timm_vit().state_dict().items()
        if name.startswith(("blocks.", "norm.")) or name == "cls_token"
    }
    inner |= {"patch_embed.proj.weight": torch.randn(DIM, 2, 4, 4, 4), "patch_embed.proj.bias": torch.randn(DIM)}
    state = {f"encoder.{name}": value for name, value in inner.items()}
    state |= {"decoder.blocks.0.attn.qkv.weight": torch.randn(72, 24), "decoder.head.weight": torch.randn(128, 24)}
    state |= {"decoder_pos_embed": fixed_table(grid, 24), "mask_token": torch.randn(1, 1, 24)}
    if table is not None:
        state["encoder_pos_embed"] = table
    return {"state_dict": state, "epoch": 3, "metric": np.float64(0.7), "optimizer": {"state": {}}}


def selfmedmae_unetr(grid: tuple[int, int, int]) -> dict[str, Any]:
    """Its fine-tuned segmenter: the table is in the encoder, with a row for the class token."""
    content = selfmedmae(grid, None)
    content["state_dict"]["encoder.pos_embed"] = torch.randn(1, 1 + math.prod(grid), DIM)
    return content


def hugging_face_mae() -> Any:
    """ViTMAE of transformers for 32 x 32 pixels in patches of 8."""
    return uneven(
        ViTMAEForPreTraining(
            ViTMAEConfig(
                hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * DIM,
                image_size=32, patch_size=8, decoder_hidden_size=24, decoder_num_hidden_layers=1,
                decoder_num_attention_heads=3, decoder_intermediate_size=48, mask_ratio=0.0, layer_norm_eps=1e-6,
            )
        )
    )  # fmt: skip


def hugging_face_vit() -> Any:
    """ViT of transformers for 32 x 32 pixels in patches of 8."""
    return uneven(
        ViTModel(
            ViTConfig(
                hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * DIM,
                image_size=32, patch_size=8, layer_norm_eps=1e-6,
            )
        )
    )  # fmt: skip


def one_epsilon(module: Any) -> Any:
    """The module with the 1e-6 of our norms in its own, where MONAI has 1e-5, so that tokens agree to rounding."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-6
    return module


def monai_vit(projection: str, size: tuple[int, ...] = (16, 16, 16), channels: int = 2) -> Any:
    """MONAI's ViT with a class token in patches of 4."""
    return one_epsilon(
        uneven(
            nets.ViT(
                channels, size, (4,) * len(size), DIM, 4 * DIM, DEPTH, HEADS, proj_type=projection,
                classification=True, num_classes=2, qkv_bias=True, spatial_dims=len(size),
            )
        )
    )  # fmt: skip


def monai_unetr(channels: int, size: int, projection: str = "conv") -> Any:
    """MONAI's UNETR of the encoder's published depth, patches of 16."""
    return one_epsilon(
        uneven(
            nets.UNETR(
                channels, 2, (size, size, size), feature_size=4, hidden_size=DIM, mlp_dim=4 * DIM, num_heads=HEADS,
                proj_type=projection, qkv_bias=True,
            )
        )
    )  # fmt: skip
