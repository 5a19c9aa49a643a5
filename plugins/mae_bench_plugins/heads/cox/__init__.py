"""`cox`: a proportional hazards model on the pooled feature, everything fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

    from mae_bench.task import Task


class CoxOptions(Options):
    """`cox` has no options."""


class Cox:
    """Builds a network for the log-risk of Cox (1972), as DeepSurv (Katzman et al. 2018) does."""

    name = "cox"
    summary = "log-risk of a proportional hazards model on the pooled feature; fine-tunes the whole network"
    Options = CoxOptions

    def provides(self, options: CoxOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: CoxOptions) -> Words:
        """A pooled feature, and outcomes with times."""
        return frozenset({"pooled", "survival"})

    def build(self, options: CoxOptions, encoder: nn.Module, task: Task) -> nn.Module:
        """The encoder with one linear output."""
        from mae_bench_plugins.heads.cox.model import CoxModel

        return CoxModel(encoder)


@hookimpl
def mae_bench_heads() -> list[Cox]:
    """Proportional hazards."""
    return [Cox()]
