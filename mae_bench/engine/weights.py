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
    geometry = None
    if hasattr(encoder, "patch"):
        geometry = {GEOMETRY: json.dumps({"channels": encoder.channels, "patch": encoder.patch, "grid": encoder.grid})}
    write_bytes(path, save(state, geometry))


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
