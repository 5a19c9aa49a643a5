"""`mae`: masked autoencoding (He et al. 2022), on the task's own training images (Zhou et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

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
    masking: Literal["random", "block", "foreground"] = Field(
        "random", description="which patches: any, whole blocks of them, or in equal shares of body and air"
    )
    block: int = Field(2, ge=1, le=32, description="tokens per axis of a block, with masking=block")
    decoder: Literal["transformer", "cross", "linear"] = Field(
        "transformer", description="of He et al.; cross: as CrossMAE; linear: as SimMIM, with the absolute error"
    )
    decoder_dim: int = Field(512, ge=8, le=4096, description="decoder width")
    decoder_depth: int = Field(8, ge=1, le=64, description="decoder blocks")
    decoder_heads: int = Field(16, ge=1, le=64, description="decoder attention heads")
    decoded: float = Field(0.25, gt=0, le=1, description="share of masked patches that are decoded, with decoder=cross")
    norm_pix: bool = Field(True, description="reconstruct voxels normalised within each patch")
    per_channel: bool = Field(False, description="normalise each channel of a patch by itself, with norm_pix")

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
    trains = True

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
        """The encoder with what predicts its masked patches."""
        from mae_bench_plugins.pretraining.mae.model import MaskedAutoencoder
        from mae_bench_plugins.pretraining.mae.variants import CrossDecoded, Simple

        normalise = "none" if not options.norm_pix else "channel" if options.per_channel else "patch"
        masked: dict[str, Any] = options.model_dump(include={"ratio", "masking", "block"}) | {"normalise": normalise}
        if options.decoder == "linear":
            return Simple(encoder, **masked)
        blocks = options.model_dump(include={"decoder_dim", "decoder_depth", "decoder_heads"})
        if options.decoder == "cross":
            return CrossDecoded(encoder, decoded=options.decoded, **blocks, **masked)
        return MaskedAutoencoder(encoder, **blocks, **masked)


@hookimpl
def mae_bench_pretrainings() -> list[MAE]:
    """The masked autoencoder."""
    return [MAE()]
