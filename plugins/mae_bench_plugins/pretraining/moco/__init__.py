"""`moco`: momentum contrast, v2 for CNNs (Chen et al. 2020) and v3 for ViTs (Chen, Xie and He 2021), 2-D and 3-D."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.recipe import Recipe
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn


class MoCoOptions(Options):
    """Options of `moco`. Defaults are the authors' own; those that differ by version are None."""

    version: Literal["auto", "v2", "v3"] = Field(
        "auto", description="v2: a queue of negatives; v3: negatives of the batch; auto: v3 for encoders of tokens"
    )
    dim: int | None = Field(None, ge=2, le=8192, description="width of what is compared; None: 128 in v2, 256 in v3")
    hidden: int | None = Field(
        None, ge=2, le=65536, description="hidden width of the projector; None: the features' in v2, 4096 in v3"
    )
    queue: int = Field(65536, ge=1, le=2**22, description="v2: keys of earlier steps that are kept as negatives")
    momentum: float | None = Field(
        None, ge=0, le=1, description="of the key encoder; None: 0.999 in v2, 0.99 rising to 1 by a cosine in v3"
    )
    temperature: float = Field(0.2, gt=0, le=10, description="divides the similarities")
    batch_stats: Literal["shuffle", "split"] = Field(
        "shuffle", description="v2: batch norms see groups, the keys' drawn anew; split: the keys only, not the queries"
    )
    group: int = Field(
        32, ge=2, le=65536, description="v2: samples that share the statistics of a batch norm, at most half a batch"
    )
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur of a view; MoCo-CXR has none")


class MoCo:
    """Builds momentum contrast around an encoder."""

    name = "moco"
    summary = "momentum contrast: two crops of one image agree, other images differ"
    Options = MoCoOptions
    trains = True

    def provides(self, options: MoCoOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: MoCoOptions) -> Words:
        """Features of whole crops."""
        return frozenset({"pooled"})

    def source(self, options: MoCoOptions) -> None:
        """Random weights."""

    def extra_samples(self, options: MoCoOptions, recipe: Recipe, cases: int) -> int:
        """None: the budget is in the pre-training."""
        return 0

    def objective(self, options: MoCoOptions, encoder: nn.Module) -> nn.Module:
        """The encoder with its projector, and their slow copies."""
        tokens = hasattr(encoder, "embed") and hasattr(encoder, "encode")
        if options.version == "v3" or (options.version == "auto" and tokens):
            from mae_bench_plugins.pretraining.moco.v3 import MoCoV3

            return MoCoV3(
                encoder,
                dim=options.dim or 256,
                hidden=options.hidden or 4096,
                momentum=0.99 if options.momentum is None else options.momentum,
                temperature=options.temperature,
                blur=options.blur,
            )
        from mae_bench_plugins.pretraining.moco.v2 import MoCoV2

        return MoCoV2(
            encoder,
            dim=options.dim or 128,
            hidden=options.hidden,
            queue=options.queue,
            momentum=0.999 if options.momentum is None else options.momentum,
            temperature=options.temperature,
            group_queries=options.batch_stats == "shuffle",
            group=options.group,
            blur=options.blur,
        )


@hookimpl
def mae_bench_pretrainings() -> list[MoCo]:
    """Momentum contrast."""
    return [MoCo()]
