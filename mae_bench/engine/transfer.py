"""From a set of weights to an encoder of another size, with an account of every parameter.

What may differ: the grid (another roi), the patch, the number of channels, two axes or three.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mae_bench.errors import InputError
from mae_bench.record import Transfer
from mae_bench.tokens import resize_positions, sincos_positions

ENOUGH = 0.95
Fate = Literal["loaded", "resized", "inflated"]


@dataclass(frozen=True)
class Weights:
    """Weights under the names our encoders use, and the geometry that their shapes alone do not tell.

    channels: of the image. patch: voxels per token and axis. grid: tokens per axis. Empty patch and grid: a network
    without tokens. fixed_positions: the table is the fixed sine-cosine one, which such files do not hold.
    """

    state: dict[str, Tensor]
    channels: int
    patch: tuple[int, ...]
    grid: tuple[int, ...]
    fixed_positions: bool = False


def load_encoder(encoder: Any, weights: Weights, source: str, *, waive: bool = False) -> Transfer:
    """Copy what fits, and bring what differs in size to the encoder's.

    Returns:
        Shares of the encoder's parameters by what became of them.

    Raises:
        InputError: less than 95 % could be used, and `waive` is not set.
    """
    there = encoder.state_dict()
    own = {name: value for name, value in there.items() if value.ndim or name in weights.state}
    counted = dict(encoder.named_parameters())
    total = sum(parameter.numel() for parameter in counted.values())
    fitted: dict[str, Tensor] = {}
    shares: Counter[str] = Counter()
    details = []
    for name, value in own.items():
        found = _fitted(name, value, encoder, weights)
        if found is not None:
            fitted[name], fate = found
        if name not in counted:
            continue
        shares[fate if found is not None else "random"] += value.numel()
        if found is None:
            details.append(f"random: {name} {_size(value)}" + _instead(weights.state.get(name)))
        elif fate != "loaded":
            details.append(f"{fate}: {name} {_size(weights.state[name])} to {_size(value)}")
    if missing := [name for name in own if name not in counted and name not in fitted]:
        details.append(f"missing: {len(missing)} statistics, which stay as they were, such as {missing[0]}")
    if unused := [name for name in weights.state if name not in there]:
        details.append(f"unused: {len(unused)} tensors of the weights, such as {unused[0]}")
    usable = 1 - shares["random"] / total
    if usable < ENOUGH and not waive:
        raise InputError(
            f"only {usable:.1%} of the encoder's parameters are in the weights from {source}; {ENOUGH:.0%} are needed",
            "choose the encoder that they are of, such as --backbone vit --set backbone.size=base, or weights of this "
            "one (of imagenet: --model), or take it all the same: --waive",
            problems=[line for line in details if line.startswith("random")][:10],
        )
    encoder.load_state_dict(fitted, strict=False)
    return Transfer(
        source=source,
        **{fate: shares[fate] / total for fate in ("loaded", "resized", "inflated", "random")},
        details=tuple(details),
        waived=usable < ENOUGH,
    )


def _fitted(name: str, own: Tensor, encoder: Any, weights: Weights) -> tuple[Tensor, Fate] | None:
    """The weights for one tensor of the encoder, or None when there are none that can be made to fit."""
    value = weights.state.get(name)
    if value is None and name == "pos_embed" and weights.fixed_positions:
        return sincos_positions(encoder.grid, own.shape[1]), "loaded"
    if value is None or (name in ("pos_embed", "patch_embed.weight") and len(weights.patch) > len(encoder.patch)):
        return None  # a volume's tokens do not fit a plane, even where the numbers agree
    fitted, fate = value, "loaded"
    if name == "pos_embed" and weights.grid:
        fitted, fate = fit_positions(value, weights.grid, encoder.grid)
    elif name == "patch_embed.weight" and weights.patch:
        kernel = value.reshape(len(value), weights.channels, *weights.patch)
        fitted, fate = fit_kernel(kernel, encoder.channels, encoder.patch)
        fitted = fitted.flatten(1)
    elif value.ndim >= 4 and own.ndim >= 4:  # convolutions; their size in voxels is their own
        size = (*value.shape[2:], *own.shape[value.ndim :])
        fitted, fate = fit_kernel(value, own.shape[1] if value.shape[1] == weights.channels else value.shape[1], size)
    return (fitted, fate) if fitted.shape == own.shape else None  # type: ignore[return-value]


def fit_positions(table: Tensor, old: Sequence[int], new: Sequence[int]) -> tuple[Tensor, Fate]:
    """A position table (prod(old), dim) on a grid of as many axes or more; along a new axis it is constant."""
    if len(new) == len(old):
        return resize_positions(table, old, new), "loaded" if tuple(new) == tuple(old) else "resized"
    plane = resize_positions(table, old, new[: len(old)])
    return plane.repeat_interleave(math.prod(new[len(old) :]), dim=0), "inflated"


def fit_kernel(kernel: Tensor, channels: int, size: Sequence[int]) -> tuple[Tensor, Fate]:
    """A kernel (out, C, *size) for other channels, more axes and another size, answering alike to a constant image.

    Constant: one value everywhere and in all channels. Each of more channels is an equal share of one of the old, in
    turn; each of fewer is the sum of those that fall to it in turn. A new axis repeats the plane (Carreira and
    Zisserman 2017). Sizes are interpolated linearly, and the mean is kept.
    """
    fate: Fate = "loaded"
    if kernel.shape[1] != channels:
        old, fate = kernel.shape[1], "inflated"
        sums = [kernel[:, number % old :: channels].sum(dim=1) for number in range(channels)]
        copies = [len(range(number % old, channels, old)) for number in range(channels)]
        kernel = torch.stack([value / shared for value, shared in zip(sums, copies, strict=True)], dim=1)
    while kernel.ndim - 2 < len(size):
        depth, fate = size[kernel.ndim - 2], "inflated"
        kernel = kernel[..., None].expand(*kernel.shape, depth) / depth
    if tuple(kernel.shape[2:]) != tuple(size) and kernel.ndim - 2 == len(size):
        voxels = math.prod(kernel.shape[2:])
        mode = "bilinear" if len(size) == 2 else "trilinear"
        axes = tuple(range(2, kernel.ndim))
        mean = kernel.mean(axes, keepdim=True)
        kernel = F.interpolate(kernel, tuple(size), mode=mode)
        kernel = (kernel - kernel.mean(axes, keepdim=True) + mean) * (voxels / math.prod(size))
        fate = "resized" if fate == "loaded" else fate
    return kernel, fate


def _size(value: Tensor) -> str:
    return "x".join(map(str, value.shape))


def _instead(value: Tensor | None) -> str:
    return "" if value is None else f", the weights have {_size(value)}"
