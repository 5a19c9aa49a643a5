"""`linear`: a probe that shows what the frozen encoder already knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

    from mae_bench.task import Task


class LinearOptions(Options):
    """`linear` has no options."""


class Linear:
    """Builds the probe: one linear map per image (classification) or per token (segmentation)."""

    name = "linear"
    summary = "linear probe on the frozen encoder, per image or per place of its map"
    Options = LinearOptions

    def provides(self, options: LinearOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: LinearOptions) -> Words:
        """A pooled feature and a token map."""
        return frozenset({"pooled", "map"})

    def build(self, options: LinearOptions, encoder: nn.Module, task: Task) -> nn.Module:
        """The frozen encoder with one linear layer."""
        from mae_bench_plugins.heads.linear.model import LinearProbe

        return LinearProbe(encoder, task)


@hookimpl
def mae_bench_heads() -> list[Linear]:
    """The linear probe."""
    return [Linear()]
