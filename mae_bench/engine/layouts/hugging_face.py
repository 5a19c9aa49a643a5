"""ViT and ViTMAE of transformers, under the names of version 4, which version 5 still saves, and of version 5."""

import re

import torch

from mae_bench.engine.layouts.names import State, Stated, renamed, without_prefix
from mae_bench.engine.layouts.vit import from_vit
from mae_bench.engine.transfer import Weights

KERNEL = "embeddings.patch_embeddings.projection.weight"
LAYER = r"(?:encoder\.layer|layers)\.(\d+)\."
NAMES = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.mask_token": "",
    r"embeddings\.patch_embeddings\.projection\.(\w+)": r"patch_embed.proj.\1",
    LAYER + r"attention\.(?:attention\.query|q_proj)\.(\w+)": r"blocks.\1.q.\2",
    LAYER + r"attention\.(?:attention\.key|k_proj)\.(\w+)": r"blocks.\1.k.\2",
    LAYER + r"attention\.(?:attention\.value|v_proj)\.(\w+)": r"blocks.\1.v.\2",
    LAYER + r"attention\.(?:output\.dense|o_proj)\.(\w+)": r"blocks.\1.attn.proj.\2",
    LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(\w+)": r"blocks.\1.mlp.fc1.\2",
    LAYER + r"(?:output\.dense|mlp\.fc2)\.(\w+)": r"blocks.\1.mlp.fc2.\2",
    LAYER + r"layernorm_before\.(\w+)": r"blocks.\1.norm1.\2",
    LAYER + r"layernorm_after\.(\w+)": r"blocks.\1.norm2.\2",
    r"layernorm\.(\w+)": r"norm.\1",
}


def from_hugging_face(state: State, stated: Stated) -> Weights:
    """Queries, keys and values are one matrix with us."""
    out = renamed(without_prefix(state, KERNEL), NAMES, inside=rf"embeddings\.|{LAYER}")
    for name in [name for name in out if re.fullmatch(r"blocks\.\d+\.q\.\w+", name)]:
        block, kind = name.split(".q.")
        out[f"{block}.attn.qkv.{kind}"] = torch.cat([out.pop(f"{block}.{which}.{kind}") for which in "qkv"])
    return from_vit(out, stated)
