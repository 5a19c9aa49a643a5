"""From a set of weights to an encoder of another size, with an account of every parameter.

What may differ: the grid (another roi), the patch, the number of channels, two axes or three.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
    own = {name: value for name, value in encoder.state_dict().items() if value.ndim or name in weights.state}
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
    usable = 1 - shares["random"] / total
    if usable < ENOUGH and not waive:
        raise InputError(
            f"only {usable:.1%} of the encoder's parameters are in the weights from {source}; {ENOUGH:.0%} are needed",
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
    if value is None:
        return None
    fitted, fate = value, "loaded"
    if name == "pos_embed" and weights.grid:
        fitted, fate = fit_positions(value, weights.grid, encoder.grid)
    elif name == "patch_embed.weight" and weights.patch:
        kernel = value.reshape(len(value), weights.channels, *weights.patch)
        fitted, fate = fit_kernel(kernel, encoder.channels, encoder.patch)
        fitted = fitted.flatten(1)
    elif value.ndim >= 4 and own.ndim >= 4:  # convolutions; their size in voxels is their own
        size = own.shape[2:] if own.ndim > value.ndim else value.shape[2:]
        fitted, fate = fit_kernel(value, own.shape[1] if value.shape[1] == weights.channels else value.shape[1], size)
    return (fitted, fate) if fitted.shape == own.shape else None  # type: ignore[return-value]


def fit_positions(table: Tensor, old: Sequence[int], new: Sequence[int]) -> tuple[Tensor, Fate]:
    """A position table (prod(old), dim) on another grid; along an axis it does not know it is constant."""
    if len(new) == len(old):
        return resize_positions(table, old, new), "loaded" if tuple(new) == tuple(old) else "resized"
    if len(new) < len(old):
        return table, "loaded"  # a volume's table has no place for a plane: its shape gives it away
    plane = resize_positions(table, old, new[: len(old)])
    return plane.repeat_interleave(math.prod(new[len(old) :]), dim=0), "inflated"


def fit_kernel(kernel: Tensor, channels: int, size: Sequence[int]) -> tuple[Tensor, Fate]:
    """A kernel (out, C, *size) for other channels, more axes and another size, answering alike to a constant image.

    One channel gets the sum of all, more get copies in turn; a new axis repeats the plane (Carreira and Zisserman
    2017); sizes are interpolated linearly.
    """
    fate: Fate = "loaded"
    if kernel.shape[1] != channels:
        old, fate = kernel.shape[1], "inflated"
        if channels == 1:
            kernel = kernel.sum(dim=1, keepdim=True)
        else:
            kernel = kernel[:, [number % old for number in range(channels)]] * (old / channels)
    while kernel.ndim - 2 < len(size):
        depth, fate = size[kernel.ndim - 2], "inflated"
        kernel = kernel[..., None].expand(*kernel.shape, depth) / depth
    if tuple(kernel.shape[2:]) != tuple(size) and kernel.ndim - 2 == len(size):
        voxels = math.prod(kernel.shape[2:])
        mode = "bilinear" if len(size) == 2 else "trilinear"
        kernel = F.interpolate(kernel, tuple(size), mode=mode) * (voxels / math.prod(size))
        fate = "resized" if fate == "loaded" else fate
    return kernel, fate


def _size(value: Tensor) -> str:
    return "x".join(map(str, value.shape))


def _instead(value: Tensor | None) -> str:
    return "" if value is None else f", the weights have {_size(value)}"
