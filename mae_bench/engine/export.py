"""Writes our ViT encoder under the names of other libraries."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from mae_bench.engine.checkpoint import save as save_checkpoint
from mae_bench.engine.transfer import Weights
from mae_bench.errors import InputError
from mae_bench.store import write_bytes

State = dict[str, Tensor]


def to_timm(weights: Weights) -> State:
    """VisionTransformer of timm without a classifier: 2-D, and its grid is the image size it must be built for."""
    state = dict(weights.state)
    if len(weights.patch) != 2:
        raise InputError(f"timm's ViT takes images of two axes, these weights have {len(weights.patch) or 'no tokens'}")
    state["patch_embed.proj.weight"] = _kernel(state.pop("patch_embed.weight"), weights)
    state["patch_embed.proj.bias"] = state.pop("patch_embed.bias")
    table = state["pos_embed"]
    # Our class token has no position; timm adds one to it.
    state["pos_embed"] = torch.cat([torch.zeros(1, table.shape[1]), table])[None]
    return state


MONAI = {"attn.proj": "attn.out_proj", "mlp.fc1": "mlp.linear1", "mlp.fc2": "mlp.linear2"}


def to_monai(weights: Weights) -> State:
    """MONAI's UNETR, the part under `vit.`, built with proj_type="conv" and qkv_bias=True.

    MONAI's encoder has no class token; UNETR trained here attends to one, so a decoder should be fine-tuned after.
    """
    if not weights.patch:
        raise InputError("MONAI's ViT has tokens, these weights are of a network without")
    out = {
        "vit.patch_embedding.patch_embeddings.weight": _kernel(weights.state["patch_embed.weight"], weights),
        "vit.patch_embedding.patch_embeddings.bias": weights.state["patch_embed.bias"],
        "vit.patch_embedding.position_embeddings": weights.state["pos_embed"][None],
    }
    for name, value in weights.state.items():
        if name.startswith(("blocks.", "norm.")):
            for ours, theirs in MONAI.items():
                name = name.replace(ours, theirs)
            out[f"vit.{name}"] = value
    return out


FORMATS: dict[str, Callable[[Weights], State]] = {"timm": to_timm, "monai": to_monai}


def export(weights: Weights, to: str, path: Path) -> int:
    """Write `path` (.safetensors, or .pth for a PyTorch checkpoint). Returns how many tensors it has."""
    state = {name: value.contiguous() for name, value in FORMATS[to](weights).items()}
    if path.suffix == ".safetensors":
        write_bytes(path, save(state))
    else:
        save_checkpoint(path, state)
    return len(state)


def _kernel(matrix: Tensor, weights: Weights) -> Tensor:
    return matrix.reshape(len(matrix), weights.channels, *weights.patch)
