"""Vision Transformers: timm's names, which others are brought to first, and ours.

Ours differ in the patch embedding, which is a matrix, and in the position table, which has no row for the class token:
what that row adds to the class token is added to it once and for all. The tokens are the same to the last rounding.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mae_bench.engine.layouts.names import State, Stated, how_to_state, without_prefix
from mae_bench.engine.transfer import Weights
from mae_bench.errors import InputError
from mae_bench.tokens import sincos_positions

KERNEL = "patch_embed.proj.weight"
LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
BLOCK = {f"{part}.{kind}" for part in (*LAYERS, "norm1", "norm2") for kind in ("weight", "bias")}
SCALES = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
NO_PLACE = re.compile(r"(reg_token|register_tokens|dist_token|norm_pre\.|rope\b|rel_pos)")


def from_timm(state: State, stated: Stated) -> Weights:
    """VisionTransformer of timm; and the reference MAE, which is built on it and has a fixed table in its files."""
    inner = without_prefix(state, KERNEL)
    if "pos_embed" not in inner:
        raise InputError("it has no pos_embed: our encoder adds positions to its tokens")
    return from_vit(inner, stated)


def from_selfmedmae(state: State, stated: Stated) -> Weights:
    """SelfMedMAE's MAE3D, whose table lies beside its encoder, and its UNETR, whose table is in it (PAPER 4).

    A file without a table has the fixed one, which every grid has its own of.
    """
    inner = without_prefix(state, KERNEL)
    beside = [value for name, value in state.items() if name.endswith("encoder_pos_embed")]
    if "pos_embed" in inner or not beside:
        return from_vit(inner, stated)
    return from_vit({**inner, "pos_embed": beside[0]}, stated, classed=False)


def from_vit(state: State, stated: Stated, *, classed: bool = True) -> Weights:
    """From timm's names to ours.

    Args:
        state: under timm's names.
        stated: what the file does not say.
        classed: the position table may have a row for the class token.

    Raises:
        InputError: it has parts that our encoder has no place for (register tokens, normalised queries), lacks some, or
            its table does not tell its grid.
        KeyError: a part that every ViT has is missing.
    """
    if strange := next((name for name in state if NO_PLACE.match(name)), None):
        raise InputError(f"it has {strange}, for which our encoder has no place")
    kernel = state[KERNEL]
    if kernel.ndim not in (4, 5):
        raise InputError(f"its {KERNEL} has {kernel.ndim} axes: patches of images have 4, of volumes 5")
    dim, channels, *patch = kernel.shape
    out: State = {"patch_embed.weight": kernel.flatten(1), "patch_embed.bias": torch.zeros(dim)}
    if "patch_embed.proj.bias" in state:
        out["patch_embed.bias"] = state["patch_embed.proj.bias"]
    if "cls_token" in state:
        out["cls_token"] = state["cls_token"].reshape(1, 1, dim)
    table, grid = state.get("pos_embed"), stated.grid
    if table is not None:
        table = table.reshape(-1, dim)
        grid = grid_of(table, len(patch), stated.grid, classed=classed and "cls_token" in out)
        if len(table) > math.prod(grid):
            out["cls_token"] = out["cls_token"] + table[0]
        out["pos_embed"] = table[-math.prod(grid) :]
    depth = 1 + max((int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name)), default=-1)
    for number in range(depth):
        out |= _block(state, f"blocks.{number}.")
    norm = "norm" if "norm.weight" in state or "fc_norm.weight" not in state else "fc_norm"
    out |= {f"norm.{kind}": state[f"{norm}.{kind}"] for kind in ("weight", "bias")}
    return Weights(out, channels, tuple(patch), tuple(grid), fixed_positions=table is None)


def _block(state: State, prefix: str) -> State:
    """One block. Layers without a bias add zero; a scale of a layer's output is a scale of its weights."""
    block = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for layer in LAYERS:
        if f"{layer}.weight" in block:
            block.setdefault(f"{layer}.bias", torch.zeros(len(block[f"{layer}.weight"])))
    for scale, layer in SCALES.items():
        if (gamma := block.pop(scale, None)) is not None:
            block[f"{layer}.weight"] = gamma[:, None] * block[f"{layer}.weight"]
            block[f"{layer}.bias"] = gamma * block[f"{layer}.bias"]
    if extra := sorted(block.keys() - BLOCK):
        raise InputError(f"it has {prefix}{extra[0]}, for which our encoder has no place")
    if lacking := sorted(BLOCK - block.keys()):
        raise InputError(f"it has no {prefix}{lacking[0]}")
    return {prefix + name: value for name, value in block.items()}


def grid_of(table: Tensor, axes: int, stated: tuple[int, ...], classed: bool) -> tuple[int, ...]:
    """Tokens per axis of a position table (L, dim), whose first row may be the class token's.

    As stated; else as a fixed sine-cosine table says; else equal along all axes.
    """
    rows = len(table)
    counts = [count for count in ((rows - 1, rows) if classed else (rows,)) if count > 0]
    if not counts:
        raise InputError("its position table has no rows for patches")
    if stated:
        if len(stated) != axes or math.prod(stated) not in counts:
            raise InputError(f"its position table has {rows} rows, which a grid of {_text(stated)} tokens has not")
        return stated
    for count in counts:
        if grid := _fixed_grid(table[-count:], axes):
            return grid
    for count in counts:
        side = round(count ** (1 / axes))
        if side**axes == count:
            return (side,) * axes
    shape = "square" if axes == 2 else "cube"
    raise InputError(
        f"its position table has {rows} rows, which is no {shape}",
        how_to_state("grid", "14,14" if axes == 2 else "6,6,4"),
    )


def _fixed_grid(table: Tensor, axes: int) -> tuple[int, ...]:
    """The grid whose fixed table this is, or nothing."""

    def fits(grid: tuple[int, ...], rows: int) -> bool:
        return torch.allclose(table[:rows], sincos_positions(grid, table.shape[1])[:rows], atol=1e-3)

    if not fits((1,) * axes, 1):  # all of them begin alike
        return ()
    return next((grid for grid in _grids(len(table), axes) if fits(grid, len(table))), ())


def _grids(count: int, axes: int) -> Iterator[tuple[int, ...]]:
    """All grids of `count` tokens."""
    if axes == 1:
        yield (count,)
        return
    for first in range(1, count + 1):
        if count % first == 0:
            yield from ((first, *rest) for rest in _grids(count // first, axes - 1))


def with_positions(weights: Weights) -> Weights:
    """The same with its fixed table in it, for files that must have one."""
    if not weights.fixed_positions:
        return weights
    if not weights.grid:
        raise InputError("its positions are the fixed ones of any grid", how_to_state("grid", "6,6,4"))
    table = sincos_positions(weights.grid, len(weights.state["patch_embed.weight"]))
    return replace(weights, state=weights.state | {"pos_embed": table}, fixed_positions=False)


def kernel_of(weights: Weights) -> Tensor:
    """Our patch matrix as a convolution kernel (dim, C, *patch)."""
    matrix = weights.state["patch_embed.weight"]
    return matrix.reshape(len(matrix), weights.channels, *weights.patch)


def to_timm(weights: Weights) -> State:
    """VisionTransformer of timm without a classifier: 2-D, to be built for the image size of the grid."""
    if len(weights.patch) != 2:
        raise InputError(f"timm's ViT takes images of two axes, these weights have {len(weights.patch) or 'no tokens'}")
    state = dict(with_positions(weights).state)
    state["patch_embed.proj.bias"] = state.pop("patch_embed.bias")
    del state["patch_embed.weight"]
    state[KERNEL] = kernel_of(weights)
    table = state["pos_embed"]
    # Our class token has no position; timm adds one to it.
    state["pos_embed"] = torch.cat([torch.zeros(1, table.shape[1]), table])[None]
    return state


def _text(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
