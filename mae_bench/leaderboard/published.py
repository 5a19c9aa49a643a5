"""Numbers of the literature: each with where it stands, under which rules, and how far that was verified.

They are never ranked with measured ones: their cases, splits and pipelines are not at hand.
"""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from mae_bench.errors import InputError
from mae_bench.leaderboard.document import fault_of_text
from mae_bench.recipe import validation_lines
from mae_bench.values import Value

FOLDER = "published"
LARGEST_FILE = 2**20

Verified = Literal["read", "secondary", "derived", "rerun", "unverified"]
MEANING: dict[str, str] = {
    "read": "read in the source that is named",
    "secondary": "read in another work that quotes the source",
    "derived": "worked out from numbers that were read",
    "rerun": "told by a user who ran the published code",
    "unverified": "known to exist, not found in a source: the cell stays empty",
}


class Number(Value):
    """One published score. value: as printed; None for a cell that is known to exist and could not be verified."""

    method: str
    metric: str
    value: float | None = Field(None, ge=0, le=1000)
    verified: Verified
    source: str
    note: str = ""

    @model_validator(mode="after")
    def _only_what_was_read(self) -> "Number":
        if (self.value is None) != (self.verified == "unverified"):
            raise ValueError("a number that is not verified stays empty, and only such a one")
        return self


class Group(Value):
    """Numbers under one protocol."""

    title: str
    protocol: str
    numbers: tuple[Number, ...] = Field(min_length=1)


class Published(Value):
    """One file: the literature of a data set."""

    dataset: str
    title: str
    groups: tuple[Group, ...] = Field(min_length=1)


def published_files(root: Path) -> list[Path]:
    """Files of published numbers under a folder of boards."""
    return sorted((root / FOLDER).glob("*.toml"))


def read_published(path: Path) -> Published:
    """Read one file.

    Raises:
        InputError: it is not valid; says which field.
    """
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: not a plain file of at most {LARGEST_FILE} bytes")
        found = Published.model_validate(tomllib.loads(path.read_text("utf-8")))
        texts = [found.dataset, found.title, *(text for group in found.groups for text in _texts(group))]
        if fault := next(filter(None, map(fault_of_text, texts)), None):
            raise InputError(f"{path}: {fault}")
        return found
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {line}" for line in validation_lines(error)]
        raise InputError(f"{path}: not published numbers as they should be", problems=lines) from error


def _texts(group: Group) -> list[str]:
    numbers = [text for each in group.numbers for text in (each.method, each.metric, each.source, each.note)]
    return [group.title, group.protocol, *numbers]
