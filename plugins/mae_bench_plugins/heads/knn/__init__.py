"""`knn`: what the frozen encoder's neighbourhoods say, with nothing trained at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

    from mae_bench.task import Task


class KNNOptions(Options):
    """Options of `knn`; defaults as Wu et al. 2018 and Caron et al. 2021 (DINO)."""

    k: int = Field(20, ge=1, le=1000, description="neighbours; all labelled cases where there are fewer")
    temperature: float = Field(0.07, ge=0.01, le=100, description="a neighbour weighs exp(cosine / temperature)")


class KNN:
    """Builds the weighted nearest-neighbour classifier."""

    name = "knn"
    summary = "weighted k nearest neighbours on the frozen encoder's pooled feature; trains nothing"
    Options = KNNOptions

    def provides(self, options: KNNOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: KNNOptions) -> Words:
        """A pooled feature, and a classification task."""
        return frozenset({"pooled", "classification"})

    def build(self, options: KNNOptions, encoder: nn.Module, task: Task) -> nn.Module:
        """The frozen encoder with an empty memory."""
        from mae_bench_plugins.heads.knn.model import KNNModel

        return KNNModel(encoder, task.outputs, options.k, options.temperature)


@hookimpl
def mae_bench_heads() -> list[KNN]:
    """Nearest neighbours."""
    return [KNN()]
