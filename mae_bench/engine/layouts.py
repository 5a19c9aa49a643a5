"""Reads encoder weights in the layouts they are given out in; each is one entry of LAYOUTS.

Vision transformers are brought to timm's names first, and from those to ours: the patch embedding as a matrix, the
position table without a row for the class token (what that row adds to the class token is added to it once and for
all), so that the tokens are the same to the last rounding.
"""

import argparse
import math
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mae_bench.engine.transfer import Weights
from mae_bench.engine.weights import has_geometry, load_weights
from mae_bench.errors import InputError

State = dict[str, Tensor]
WRAPPERS = ("model", "state_dict", "model_state_dict", "network", "net")


class Stated(NamedTuple):
    """What the user says of a file that does not say it itself."""

    channels: int | None = None
    grid: tuple[int, ...] = ()


NOTHING = Stated()


class Found(NamedTuple):
    """A file's layout by name, with its weights under our names."""

    layout: str
    weights: Weights


@dataclass(frozen=True)
class Layout:
    """marks: parts of names that a file of this layout has. convert: from its names to ours."""

    name: str
    marks: tuple[str, ...]
    convert: Callable[[State, Stated], Weights]


def read_weights(path: Path, stated: Stated = NOTHING) -> Found:
    """Read a weights file of any known layout.

    Raises:
        InputError: missing, damaged, of no known layout, or ambiguous in a way that `stated` could settle.
    """
    if has_geometry(path):
        return Found("mae-bench", load_weights(path))
    state = _tensors(path)
    names = "\n".join(state)
    for layout in LAYOUTS:
        if all(mark in names for mark in layout.marks):
            try:
                return Found(layout.name, layout.convert(state, stated))
            except (KeyError, RuntimeError, ValueError) as error:
                raise InputError(f"{path}: looks like {layout.name}, but its tensors do not fit: {error}") from error
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise InputError(f"{path}: weights of an unknown layout (known: {known}); its first names: {list(state)[:3]}")


def _tensors(path: Path) -> State:
    """All tensors of a safetensors file or of a checkpoint that PyTorch can read without running code."""
    if not path.is_file():
        raise InputError(f"{path}: missing")
    try:
        found: Any
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            # The reference MAE keeps its arguments beside the weights; a Namespace does nothing when it is read.
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what it cannot read it refuses, which is said below
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than tensors, and reading it could run its code: {_first_line(error)}",
            "load it where you trust it, and save its tensors alone with safetensors.torch.save_file",
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable weights file: {_first_line(error)}") from error
    while isinstance(found, Mapping) and (inner := next((name for name in WRAPPERS if name in found), None)):
        if not isinstance(found[inner], Mapping):
            break
        found = found[inner]
    state = {name: value for name, value in found.items() if isinstance(value, Tensor)} if found else {}
    if not state:
        raise InputError(f"{path}: no tensors in it")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _without_prefix(state: State, name: str) -> State:
    """The part of the state in which `name` has no prefix."""
    full = next(key for key in state if key == name or key.endswith("." + name))
    prefix = full.removesuffix(name)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def from_timm(state: State, stated: Stated) -> Weights:
    """VisionTransformer of timm, and the reference MAE and SelfMedMAE, which are built on it (PAPER 4)."""
    return _from_vit(_without_prefix(state, "patch_embed.proj.weight"), stated)


def _from_vit(state: State, stated: Stated) -> Weights:
    """From timm's names to ours."""
    kernel = state["patch_embed.proj.weight"]
    dim, channels, *patch = kernel.shape
    out: State = {"patch_embed.weight": kernel.flatten(1), "patch_embed.bias": _bias(state, "patch_embed.proj", dim)}
    if "cls_token" in state:
        out["cls_token"] = state["cls_token"].reshape(1, 1, dim)
    table, grid = state.get("pos_embed"), stated.grid
    if table is not None:
        table = table.reshape(-1, dim)
        grid = _grid(len(table), len(patch), stated.grid, classed="cls_token" in state)
        if len(table) == math.prod(grid) + 1:
            out["cls_token"] = out["cls_token"] + table[0]
            table = table[1:]
        out["pos_embed"] = table
    for name, value in state.items():
        if re.match(r"blocks\.\d+\.", name) and "norm_cross_attn" not in name:
            out[name] = value
    for number in range(1 + max(int(name.split(".")[1]) for name in out if name.startswith("blocks."))):
        out.setdefault(f"blocks.{number}.attn.qkv.bias", torch.zeros(3 * dim))  # a layer without a bias adds zero
    norm = "norm" if "norm.weight" in state else "fc_norm"
    out |= {f"norm.{part}": state[f"{norm}.{part}"] for part in ("weight", "bias")}
    return Weights(out, channels, tuple(patch), tuple(grid), fixed_positions=table is None)


def _bias(state: State, name: str, size: int) -> Tensor:
    return state[f"{name}.bias"] if f"{name}.bias" in state else torch.zeros(size)


def _grid(rows: int, axes: int, stated: tuple[int, ...], classed: bool) -> tuple[int, ...]:
    """Tokens per axis of a table with `rows` rows, one of which may be the class token's."""
    for count in (rows - 1, rows) if classed else (rows,):
        side = round(count ** (1 / axes))
        if stated and math.prod(stated) == count:
            return stated
        if not stated and side**axes == count:
            return (side,) * axes
    raise InputError(
        f"its position table has {rows} rows, which is no {'square' if axes == 2 else 'cube'}",
        "say its tokens per axis: --grid 14,14",
    )


def _renamed(state: State, table: Mapping[str, str]) -> State:
    """Names by regular expressions; what no expression knows is dropped."""
    out: State = {}
    for name, value in state.items():
        for pattern, new in table.items():
            if match := re.fullmatch(pattern, name):
                out[match.expand(new)] = value
                break
    return out


LAYER = r"(?:encoder\.layer|layers)\.(\d+)\."
HUGGING_FACE = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
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
MONAI = {
    r"cls_token": "cls_token",
    r"patch_embedding\.position_embeddings": "pos_embed",
    r"patch_embedding\.patch_embeddings\.(?:1\.)?(\w+)": r"patch_embed.proj.\1",
    r"blocks\.(\d+)\.attn\.qkv\.(\w+)": r"blocks.\1.attn.qkv.\2",
    r"blocks\.(\d+)\.attn\.out_proj\.(\w+)": r"blocks.\1.attn.proj.\2",
    r"blocks\.(\d+)\.mlp\.linear([12])\.(\w+)": r"blocks.\1.mlp.fc\2.\3",
    r"blocks\.(\d+)\.norm([12])\.(\w+)": r"blocks.\1.norm\2.\3",
    r"norm\.(\w+)": r"norm.\1",
}


def from_hugging_face(state: State, stated: Stated) -> Weights:
    """ViT and ViTMAE of transformers, as saved by version 4 and 5."""
    out = _renamed(_without_prefix(state, "embeddings.patch_embeddings.projection.weight"), HUGGING_FACE)
    for name in [name for name in out if re.fullmatch(r"blocks\.\d+\.q\.\w+", name)]:
        block, part = name.split(".q.")
        out[f"{block}.attn.qkv.{part}"] = torch.cat([out.pop(f"{block}.{which}.{part}") for which in "qkv"])
    return _from_vit(out, stated)


def from_monai(state: State, stated: Stated) -> Weights:
    """MONAI's ViT, also inside UNETR; patches projected by a convolution or a perceptron."""
    inner = _without_prefix(state, "patch_embedding.position_embeddings")
    out = _renamed(inner, MONAI)
    kernel = out["patch_embed.proj.weight"]
    if kernel.ndim == 2:
        out["patch_embed.proj.weight"] = _perceptron_kernel(kernel, state, len(out["pos_embed"][0]), stated)
    return _from_vit(out, stated)


def _perceptron_kernel(matrix: Tensor, state: State, rows: int, stated: Stated) -> Tensor:
    """(D, voxels x channels), the channels last, as a kernel (D, C, *patch)."""
    channels = stated.channels
    if channels is None and "encoder1.layer.conv1.conv.weight" in state:  # UNETR's first convolution sees the image
        channels = state["encoder1.layer.conv1.conv.weight"].shape[1]
    axes = next((axes for axes in (3, 2) if round(rows ** (1 / axes)) ** axes == rows), len(stated.grid) or 3)
    if channels is None:
        raise InputError("its patches are projected by a matrix, which hides the channels", "say them: --channels 1")
    side = round((matrix.shape[1] / channels) ** (1 / axes))
    if side**axes * channels != matrix.shape[1]:
        raise InputError(f"{matrix.shape[1]} values per patch are not {channels} channels of a cube")
    return matrix.reshape(len(matrix), *[side] * axes, channels).movedim(-1, 1)


def from_resnet(state: State, stated: Stated) -> Weights:
    """Residual networks of timm and torchvision."""
    inner = _without_prefix(state, "layer1.0.conv1.weight")
    kept = {name: value for name, value in inner.items() if re.match(r"(conv1|bn1|layer\d)\.", name)}
    return Weights(kept, kept["conv1.weight"].shape[1], (), ())


def from_densenet(state: State, stated: Stated) -> Weights:
    """Densely connected networks of torchvision, also under the names of their first releases (`norm.1`)."""
    inner = _without_prefix(state, "features.conv0.weight")
    old = re.compile(r"(norm|conv)\.([12])\.")
    kept = {old.sub(r"\1\2.", name): value for name, value in inner.items() if name.startswith("features.")}
    return Weights(kept, kept["features.conv0.weight"].shape[1], (), ())


# The first whose marks are all there; what is more special comes first.
LAYOUTS = (
    Layout("transformers ViT", ("embeddings.patch_embeddings.projection.weight",), from_hugging_face),
    Layout("MONAI ViT", ("patch_embedding.position_embeddings",), from_monai),
    Layout("SelfMedMAE", ("encoder.patch_embed.proj.weight", "encoder.blocks.0."), from_timm),
    Layout("facebookresearch/mae", ("patch_embed.proj.weight", "decoder_blocks.0.", "mask_token"), from_timm),
    Layout("timm ViT", ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"), from_timm),
    Layout("ResNet", ("layer1.0.conv1.weight", "bn1.running_mean"), from_resnet),
    Layout("DenseNet", ("features.conv0.weight", "features.denseblock1."), from_densenet),
)
