"""`unetr`: convolutional decoder over the encoder's hidden states (Hatamizadeh et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

    from mae_bench.task import Task


class UNETROptions(Options):
    """Options of `unetr`."""

    features: int = Field(16, ge=2, le=128, description="channels at full resolution, doubled at each level below")


class UNETR:
    """Builds the UNETR decoder for any patch size that is a power of two per axis."""

    name = "unetr"
    summary = "UNETR decoder with skips from evenly spaced depths; fine-tunes the whole network"
    Options = UNETROptions

    def provides(self, options: UNETROptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: UNETROptions) -> Words:
        """Hidden token maps, and a segmentation task."""
        return frozenset({"map", "hidden", "segmentation"})

    def build(self, options: UNETROptions, encoder: nn.Module, task: Task) -> nn.Module:
        """The encoder with its decoder."""
        from mae_bench_plugins.heads.unetr.model import UNETRModel

        return UNETRModel(encoder, task.outputs, options.features)


@hookimpl
def mae_bench_heads() -> list[UNETR]:
    """The UNETR decoder."""
    return [UNETR()]
