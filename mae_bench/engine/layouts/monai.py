"""MONAI's ViT, alone and inside UNETR; patches projected by a convolution or by a perceptron."""

import math

from torch import Tensor

from mae_bench.engine.layouts.names import State, Stated, how_to_state, renamed, without_prefix
from mae_bench.engine.layouts.vit import KERNEL, from_vit, kernel_of, with_positions
from mae_bench.engine.transfer import Weights
from mae_bench.errors import InputError

POSITIONS = "patch_embedding.position_embeddings"
FIRST_CONVOLUTION = "encoder1.layer.conv1.conv.weight"  # of UNETR: it sees the image
LAYERS = {"attn.qkv": "attn.qkv", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.linear1", "mlp.fc2": "mlp.linear2"}
NAMES = {
    r"cls_token": "cls_token",
    r"patch_embedding\.position_embeddings": "pos_embed",
    r"patch_embedding\.cls_token": "",  # MONAI makes one that it never uses
    r"patch_embedding\.patch_embeddings\.(?:1\.)?(\w+)": r"patch_embed.proj.\1",
    r"blocks\.(\d+)\.attn\.qkv\.(\w+)": r"blocks.\1.attn.qkv.\2",
    r"blocks\.(\d+)\.attn\.out_proj\.(\w+)": r"blocks.\1.attn.proj.\2",
    r"blocks\.(\d+)\.mlp\.linear([12])\.(\w+)": r"blocks.\1.mlp.fc\2.\3",
    r"blocks\.(\d+)\.norm([12])\.(\w+)": r"blocks.\1.norm\2.\3",
    r"blocks\.(\d+)\.norm_cross_attn\.\w+": "",  # only attention to text goes through it
    r"norm\.(\w+)": r"norm.\1",
}


def from_monai(state: State, stated: Stated) -> Weights:
    """A ViT trained without a class token, as in UNETR, has none for ours: the transfer report says so."""
    out = renamed(without_prefix(state, POSITIONS), NAMES, inside=r"patch_embedding\.|blocks\.")
    if out[KERNEL].ndim == 2:
        first = next((value for name, value in state.items() if name.endswith(FIRST_CONVOLUTION)), None)
        out[KERNEL] = _perceptron_kernel(out[KERNEL], out["pos_embed"].shape[-2], first, stated)
    return from_vit(out, stated, classed=False)


def _perceptron_kernel(matrix: Tensor, rows: int, first: Tensor | None, stated: Stated) -> Tensor:
    """(dim, voxels x channels), channels last, as a kernel (dim, C, *patch)."""
    values = matrix.shape[1]
    channels = stated.channels or (None if first is None else first.shape[1])
    if channels is None:
        raise InputError(
            "its patches are projected by a matrix, which hides the channels", how_to_state("channels", "1")
        )
    if stated.patch:
        patches = [stated.patch]
    else:
        known = len(stated.grid) or (0 if first is None else first.ndim - 2)
        sides = {axes: round((values / channels) ** (1 / axes)) for axes in ([known] if known else [2, 3])}
        patches = [(side,) * axes for axes, side in sides.items() if known or round(rows ** (1 / axes)) ** axes == rows]
    patches = [patch for patch in patches if math.prod(patch) * channels == values]
    if len(patches) != 1:
        which = "which of several patches" if patches else f"patches of {channels} channels"
        raise InputError(f"its patches have {values} values: {which} is not clear", how_to_state("patch", "16,16,16"))
    return matrix.reshape(len(matrix), *patches[0], channels).movedim(-1, 1)


def to_monai(weights: Weights, *, perceptron: bool = False) -> State:
    """MONAI's UNETR, the part under `vit.`, to be built with qkv_bias=True and proj_type "conv" or "perceptron".

    MONAI's encoder has no class token, ours attends to one: fine-tune what is made of it.
    """
    if not weights.patch:
        raise InputError("MONAI's ViT has tokens, these weights are of a network without")
    state, kernel = with_positions(weights).state, kernel_of(weights)
    patches = "vit.patch_embedding.patch_embeddings." + ("1." if perceptron else "")
    out = {
        f"{patches}weight": kernel.movedim(1, -1).flatten(1) if perceptron else kernel,
        f"{patches}bias": state["patch_embed.bias"],
        f"vit.{POSITIONS}": state["pos_embed"][None],
    }
    for name, value in state.items():
        if name.startswith(("blocks.", "norm.")):
            for ours, theirs in LAYERS.items():
                name = name.replace(f".{ours}.", f".{theirs}.")
            out[f"vit.{name}"] = value
    return out
