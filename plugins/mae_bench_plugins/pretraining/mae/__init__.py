"""`mae`: masked autoencoding (He et al. 2022), on the task's own training images (Zhou et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from mae_bench import hookimpl
from mae_bench.interfaces import Words
from mae_bench.recipe import Recipe
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn


class MAEOptions(Options):
    """Options of `mae`. Defaults are those of He et al. 2022; the 3-D decoder of the paper is 384 wide."""

    ratio: float = Field(0.75, gt=0, lt=1, description="share of patches that are masked")
    decoder_dim: int = Field(512, ge=8, description="decoder width")
    decoder_depth: int = Field(8, ge=1, le=64, description="decoder blocks")
    decoder_heads: int = Field(16, ge=1, description="decoder attention heads")
    norm_pix: bool = Field(True, description="reconstruct voxels normalised within each patch")

    @model_validator(mode="after")
    def _heads_divide(self) -> MAEOptions:
        if self.decoder_dim % self.decoder_heads:
            raise ValueError(f"decoder_heads {self.decoder_heads} does not divide decoder_dim {self.decoder_dim}")
        return self


class MAE:
    """Builds the masked autoencoder around an encoder."""

    name = "mae"
    summary = "masked autoencoder: reconstruct hidden patches from visible ones"
    Options = MAEOptions

    def provides(self, options: MAEOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: MAEOptions) -> Words:
        """An encoder that can run on a subset of its patches."""
        return frozenset({"tokens"})

    def source(self, options: MAEOptions) -> None:
        """Random weights."""

    def extra_samples(self, options: MAEOptions, recipe: Recipe, cases: int) -> int:
        """None: the budget is in the pre-training."""
        return 0

    def objective(self, options: MAEOptions, encoder: nn.Module) -> nn.Module:
        """The encoder with its decoder."""
        from mae_bench_plugins.pretraining.mae.model import MaskedAutoencoder

        return MaskedAutoencoder(encoder, **options.model_dump())


@hookimpl
def mae_bench_pretrainings() -> list[MAE]:
    """The masked autoencoder."""
    return [MAE()]
