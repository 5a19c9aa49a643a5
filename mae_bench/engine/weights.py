"""Encoder weights on disk: safetensors, with the geometry that their shapes do not tell in the header."""

import math
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mae_bench.engine.transfer import Weights
from mae_bench.errors import InputError
from mae_bench.store import write_bytes
from mae_bench.values import Value

GEOMETRY = "mae_bench"  # key of the header that tells channels, patch and grid


class Geometry(Value):
    """What the header tells; see `Weights`."""

    channels: PositiveInt
    patch: tuple[PositiveInt, ...]
    grid: tuple[PositiveInt, ...]

    def check(self, weights: Weights) -> None:
        """Raise ValueError if tokens of this geometry have other shapes."""
        for name, axis, size in (
            ("patch_embed.weight", 1, self.channels * math.prod(self.patch)),
            ("pos_embed", 0, math.prod(self.grid)),
        ):
            if name in weights.state and tuple(weights.state[name].shape)[axis : axis + 1] != (size,):
                raise ValueError(f"{name} is of another geometry than its header tells")


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the weights of a model whole or not at all; an encoder's with its geometry."""
    state = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    encoder: Any = module
    if hasattr(encoder, "patch"):
        write_weights(Weights(state, encoder.channels, tuple(encoder.patch), tuple(encoder.grid)), path)
    else:
        save_state(path, state)


def save_state(path: Path, state: dict[str, Tensor]) -> None:
    """Write named tensors as they are, whole or not at all."""
    write_bytes(path, save({name: value.contiguous() for name, value in state.items()}))


def write_weights(weights: Weights, path: Path) -> None:
    """Write an encoder's weights with their geometry."""
    geometry = Geometry(channels=weights.channels, patch=weights.patch, grid=weights.grid)
    state = {name: value.contiguous().clone() for name, value in weights.state.items()}
    write_bytes(path, save(state, {GEOMETRY: geometry.model_dump_json()}))


def has_geometry(path: Path) -> bool:
    """Whether a file is one that `write_weights` wrote."""
    try:
        with safe_open(path, "pt") as file:
            return GEOMETRY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_weights(path: Path) -> Weights:
    """Read an encoder that `save_weights` wrote.

    Raises:
        InputError: missing, damaged, or not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get(GEOMETRY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    if found is None:
        raise InputError(f"{path}: not an encoder written by mae-bench: its header says nothing of {GEOMETRY}")
    try:
        geometry = Geometry.model_validate_json(found)
        weights = Weights(state, geometry.channels, geometry.patch, geometry.grid)
        geometry.check(weights)
    except ValidationError as error:
        raise InputError(f"{path}: its header is damaged: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return weights
