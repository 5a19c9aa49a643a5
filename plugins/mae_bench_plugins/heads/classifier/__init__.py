"""`classifier`: a linear layer on the pooled feature, everything fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

    from mae_bench.task import Task


class ClassifierOptions(Options):
    """`classifier` has no options."""


class Classifier:
    """Builds the classifier of He et al. 2022 and the paper's ChestX-ray14 runs."""

    name = "classifier"
    summary = "linear layer on the pooled feature; fine-tunes the whole network"
    Options = ClassifierOptions

    def provides(self, options: ClassifierOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: ClassifierOptions) -> Words:
        """A pooled feature, and a classification task."""
        return frozenset({"pooled", "classification"})

    def build(self, options: ClassifierOptions, encoder: nn.Module, task: Task) -> nn.Module:
        """The encoder with one linear layer."""
        from mae_bench_plugins.heads.classifier.model import ClassifierModel

        return ClassifierModel(encoder, task.outputs)


@hookimpl
def mae_bench_heads() -> list[Classifier]:
    """The classifier."""
    return [Classifier()]
