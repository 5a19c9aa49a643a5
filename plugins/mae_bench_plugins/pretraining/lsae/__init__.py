"""`lsae`: the Lung Swapping Autoencoder (Zhou et al., MICCAI 2021; arXiv 2201.07344), and its encoder, `texture`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.errors import UsageError
from mae_bench.interfaces import Words
from mae_bench.recipe import Recipe
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

STRIDE = 16  # pixels per place of the structure map


class TextureOptions(Options):
    """Options of `texture`. Defaults are the published sizes."""

    width: int = Field(32, ge=4, le=128, description="channels of the first layer")
    dim: int = Field(2048, ge=8, le=8192, description="length of the texture vector")


class Texture:
    """Builds the stem and texture branch of LSAE, which is what its downstream tasks use."""

    name = "texture"
    summary = "LSAE's texture encoder: a small residual network for 2-D images with multiples of 16 pixels"
    Options = TextureOptions

    def provides(self, options: TextureOptions) -> Words:
        """What heads and pre-trainings find in it."""
        return frozenset({"2d", "map", "pooled"})

    def needs(self, options: TextureOptions) -> Words:
        """Takes any image of two axes."""
        return frozenset()

    def check(self, options: TextureOptions, roi: tuple[int, ...]) -> None:
        """Refuse crops that do not halve four times, or leave less than 2 x 2 places."""
        if len(roi) != 2 or any(size % STRIDE or size < 2 * STRIDE for size in roi):
            raise UsageError(
                f"texture takes 2-D crops of multiples of {STRIDE} pixels from {2 * STRIDE}, not {roi}: "
                "change --set recipe.roi=..."
            )

    def build(self, options: TextureOptions, channels: int, roi: tuple[int, ...], drop_path: float = 0.0) -> nn.Module:
        """A new encoder with random weights; it has no stochastic depth. Raises UsageError as `check` does."""
        from mae_bench_plugins.pretraining.lsae.encoder import TextureEncoder

        self.check(options, roi)
        return TextureEncoder(channels, roi, options.width, options.dim)


class LSAEOptions(Options):
    """Options of `lsae`. Defaults are the published ones (PAPER 5b).

    `bound` is of this implementation: grey values of 0 to 1 less 0.5, over 0.225, as radiographs come in, end at 2.22.
    """

    width: int = Field(32, ge=4, le=128, description="channels of the first layers")
    texture_dim: int = Field(2048, ge=8, le=8192, description="length of the texture vector that styles the generator")
    structure_channels: int = Field(8, ge=1, le=64, description="channels of the structure map")
    patch_size: int = Field(64, ge=16, le=256, multiple_of=16, description="pixels to which lung patches are resized")
    bound: float = Field(2.25, gt=0, le=1000, description="image value that becomes 1 for the generator")
    r1_every: int = Field(16, ge=1, le=1000, description="steps between gradient penalties")
    r1_image: float = Field(10.0, ge=0, le=1000, description="gamma of the image discriminator's gradient penalty")
    r1_patch: float = Field(1.0, ge=0, le=1000, description="gamma of the patch discriminator's gradient penalty")
    recon: float = Field(1.0, ge=0, le=1000, description="weight of the reconstruction, mean absolute error")
    image_gan: float = Field(0.5, ge=0, le=1000, description="weight of fooling the image discriminator")
    patch_gan: float = Field(1.0, ge=0, le=1000, description="weight of fooling the patch discriminator")
    nce: float = Field(1.0, ge=0, le=1000, description="weight of PatchNCE outside the lungs")
    feature: float = Field(0.5, ge=0, le=1000, description="weight of recovering the codes from the hybrid")
    temperature: float = Field(0.07, ge=0.01, le=10, description="temperature of PatchNCE")


class LSAE:
    """Builds the swapping autoencoder and its discriminators around an encoder."""

    name = "lsae"
    summary = (
        "lung swapping autoencoder: structure of one radiograph, lung texture of another (needs masks to be itself)"
    )
    Options = LSAEOptions
    trains = True

    def provides(self, options: LSAEOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: LSAEOptions) -> Words:
        """An encoder of 2-D images with one vector per image."""
        return frozenset({"2d", "map", "pooled"})

    def source(self, options: LSAEOptions) -> None:
        """Random weights."""

    def extra_samples(self, options: LSAEOptions, recipe: Recipe, cases: int) -> int:
        """None: the budget is in the pre-training."""
        return 0

    def objective(self, options: LSAEOptions, encoder: nn.Module) -> nn.Module:
        """The encoder with all that trains it. Raises UsageError for an encoder that is not 2-D."""
        from mae_bench_plugins.pretraining.lsae.model import LungSwapping

        names = {"recon", "image_gan", "patch_gan", "nce", "feature"}
        return LungSwapping(encoder, **options.model_dump(exclude=names), weights=options.model_dump(include=names))


@hookimpl
def mae_bench_backbones() -> list[Texture]:
    """LSAE's encoder."""
    return [Texture()]


@hookimpl
def mae_bench_pretrainings() -> list[LSAE]:
    """The lung swapping autoencoder."""
    return [LSAE()]
