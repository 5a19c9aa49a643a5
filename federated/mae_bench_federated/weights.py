"""What of a module is federated: floating-point parameters, and the running statistics of its batch norms.

Everything else stays where it is. A queue of keys, for one, is made of patients' images; counters are no weights.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from torch import Tensor, nn

Values = NDArray[np.floating[Any]]
Arrays = Mapping[str, Values]

STATISTICS = ("running_mean", "running_var")


def learned_names(module: nn.Module) -> list[str]:
    """Parameters, each once. Those without a gradient count too: a momentum encoder learns without one."""
    return [name for name, each in module.named_parameters() if each.is_floating_point()]


def statistics_names(module: nn.Module) -> list[str]:
    """Running statistics of batch norms."""
    return [name for name, _ in module.named_buffers() if name.rpartition(".")[2] in STATISTICS]


def federated_names(module: nn.Module) -> list[str]:
    """All that travels, in the order in which it does."""
    return learned_names(module) + statistics_names(module)


def take(module: nn.Module) -> dict[str, Values]:
    """A copy of what is federated."""
    state = module.state_dict()
    # A copy, for the module goes on learning: for the next site, if not for this one.
    return {name: state[name].detach().to("cpu", copy=True).numpy() for name in federated_names(module)}


def take_private(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the rest of the state."""
    public = set(federated_names(module))
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items() if name not in public}


def give(module: nn.Module, arrays: Arrays) -> None:
    """Load what is federated, in place."""
    module.load_state_dict(tensors(arrays), strict=False)


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    """The same memory as tensors."""
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def narrow(arrays: Arrays) -> dict[str, Values]:
    """In half precision. What is too large becomes infinite, and is then refused as such."""
    with np.errstate(over="ignore"):
        return {name: value.astype(np.float16) for name, value in arrays.items()}


def pack(arrays: Arrays, *, wire: bool) -> ArrayRecord:
    """As Flower carries it. Within one process nothing is serialised."""
    record = ArrayRecord()
    for name, value in arrays.items():
        record[name] = Array(value) if wire else InMemory(value)
    return record


def unpack(record: ArrayRecord) -> dict[str, Values]:
    """Arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


class InMemory(Array):
    """An array that is serialised only when someone asks for its bytes: none does within one process."""

    def __init__(self, values: Values) -> None:
        self.__dict__.update(dtype=str(values.dtype), shape=values.shape, stype="numpy.ndarray", values=values)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """As Flower serialises it."""
        data: bytes = Array.from_numpy_ndarray(self.__dict__["values"]).data
        return data

    def numpy(self) -> Values:
        """The array itself, not a copy."""
        values: Values = self.__dict__["values"]
        return values


def count_bytes(arrays: Arrays) -> int:
    """Bytes of the numbers themselves."""
    return sum(value.nbytes for value in arrays.values())
