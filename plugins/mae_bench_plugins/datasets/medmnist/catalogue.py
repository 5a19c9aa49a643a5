"""What is published about each data set of MedMNIST+: `flags.toml` as values."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from mae_bench.values import Value

SIDES = ("train", "val", "test")


class Published(Value):
    """One data set. labels: names in the order of their values. md5 and samples: by image size, and by side.

    shape: volumes are masks of a surface, not intensities. flips: axes along which a mirrored image is as plausible.
    """

    task: Literal["multi-class", "binary-class", "ordinal-regression", "multi-label, binary-class"]
    channels: Literal[1, 3]
    axes: Literal[2, 3] = 2
    shape: bool = False
    flips: tuple[int, ...]
    labels: tuple[str, ...] = Field(min_length=2)
    samples: dict[str, int]
    licence: str
    md5: dict[int, str]

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.task == "multi-label, binary-class"

    @property
    def findings(self) -> tuple[str, ...]:
        """What is predicted, each by a sigmoid of its own.

        Of several classes each against the rest, so that the mean AUC is the macro one-vs-rest AUC that MedMNIST
        reports; of two the second alone, since the first is its complement.
        """
        return self.labels[1:] if self.task == "binary-class" else self.labels

    @property
    def label_columns(self) -> int:
        """Width of the label table in the file."""
        return len(self.labels) if self.multi_label else 1


@cache
def catalogue() -> dict[str, Published]:
    """All 18, by flag."""
    found = tomllib.loads((Path(__file__).parent / "flags.toml").read_text())
    return {flag: Published.model_validate(facts) for flag, facts in found.items()}


def file_name(flag: str, size: int) -> str:
    """As the files are published: 28 pixels go without saying."""
    return f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"
