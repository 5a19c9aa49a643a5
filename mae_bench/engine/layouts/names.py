"""What the converters share: what the user states of a file, and names under other names."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from mae_bench.errors import InputError

State = dict[str, Tensor]


class Stated(NamedTuple):
    """What the user says of a file that does not say it itself: `--file-channels`, `--file-patch`, `--file-grid`."""

    channels: int | None = None
    patch: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()


NOTHING = Stated()


def how_to_state(what: str, example: str) -> str:
    """What to type where a file hides something; the run itself has no such options."""
    return f"state its {what}: mae-bench weights import FILE OUT --file-{what} {example}; then use OUT"


def without_prefix(state: State, name: str) -> State:
    """The part of the state in which `name` has no prefix. Raises KeyError when no name ends so."""
    full = next((key for key in state if key == name or key.endswith("." + name)), None)
    if full is None:
        raise KeyError(name)
    prefix = full.removesuffix(name)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def renamed(state: State, table: Mapping[str, str], inside: str) -> State:
    """Names by regular expressions.

    Args:
        state: under their names.
        table: new names by patterns of whole names; what gets no name is dropped knowingly.
        inside: pattern of the beginnings under which every name must be known. Others are heads, and dropped.

    Raises:
        InputError: a part of the encoder that is not known, without which the tokens would be others.
    """
    out: State = {}
    for name, value in state.items():
        match, new = next(
            ((match, new) for pattern, new in table.items() if (match := re.fullmatch(pattern, name))), (None, "")
        )
        if match is not None and new:
            out[match.expand(new)] = value
        elif match is None and re.match(inside, name):
            raise InputError(f"it has {name}, for which our encoder has no place")
    return out
