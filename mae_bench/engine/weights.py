"""Encoder weights on disk: safetensors, with the geometry that their shapes do not tell in the header."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from mae_bench.engine.transfer import Weights
from mae_bench.errors import InputError
from mae_bench.store import write_bytes

GEOMETRY = "mae_bench"  # key of the header that tells channels, patch and grid


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the weights of a model whole or not at all; an encoder's with its geometry."""
    state = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    encoder: Any = module
    if hasattr(encoder, "patch"):
        write_weights(Weights(state, encoder.channels, tuple(encoder.patch), tuple(encoder.grid)), path)
    else:
        write_bytes(path, save(state))


def write_weights(weights: Weights, path: Path) -> None:
    """Write an encoder's weights with their geometry."""
    geometry = {"channels": weights.channels, "patch": weights.patch, "grid": weights.grid}
    state = {name: value.contiguous().clone() for name, value in weights.state.items()}
    write_bytes(path, save(state, {GEOMETRY: json.dumps(geometry)}))


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
    geometry = json.loads(found)
    return Weights(state, geometry["channels"], tuple(geometry["patch"]), tuple(geometry["grid"]))
