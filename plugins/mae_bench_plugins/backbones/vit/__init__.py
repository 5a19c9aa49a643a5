"""`vit`: the Vision Transformer (Dosovitskiy et al. 2021), 2-D and 3-D as one class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from mae_bench import hookimpl
from mae_bench.errors import UsageError
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

# width, depth, heads: ViT-Ti, S, B, L of Dosovitskiy et al. 2021 and Touvron et al. 2021
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


class ViTOptions(Options):
    """Options of `vit`."""

    size: Literal["tiny", "small", "base", "large"] = Field("base", description="width, depth and heads")
    patch: tuple[PositiveInt, ...] = Field(
        (16,), min_length=1, max_length=3, description="patch size, one or one per axis"
    )
    position: Literal["sincos", "centred", "learned"] = Field(
        "sincos", description="how the position table starts; centred: sincos without what is constant over the grid"
    )
    attention_gain: float = Field(
        1.0, ge=0.1, le=10, description="factor on the first query and key weights: above 1, attention is sharper"
    )
    depth: int | None = Field(None, ge=2, le=64, description="number of blocks, if not the size's own")


class ViT:
    """Builds Vision Transformers."""

    name = "vit"
    summary = "Vision Transformer, tiny to large, for 2-D and 3-D crops of any shape"
    Options = ViTOptions

    def provides(self, options: ViTOptions) -> Words:
        """What heads and pre-trainings find in it."""
        axes = {1: {"2d", "3d"}, 2: {"2d"}, 3: {"3d"}}[len(options.patch)]
        return frozenset({"tokens", "map", "hidden", "pooled", *axes})

    def needs(self, options: ViTOptions) -> Words:
        """Takes any image."""
        return frozenset()

    def check(self, options: ViTOptions, roi: tuple[int, ...]) -> None:
        """Refuse a crop that is not a whole number of patches."""
        patch = _patch(options, roi)
        if len(patch) != len(roi) or any(size % part for size, part in zip(roi, patch, strict=True)):
            raise UsageError(
                f"a crop of {roi} is not a whole number of patches of {patch}: "
                "change --set recipe.roi=... or --set backbone.patch=..."
            )

    def build(self, options: ViTOptions, channels: int, roi: tuple[int, ...], drop_path: float = 0.0) -> nn.Module:
        """A new encoder with random weights. Raises UsageError as `check` does."""
        from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder

        self.check(options, roi)
        dim, depth, heads = SIZES[options.size]
        return VisionTransformerEncoder(
            channels,
            roi,
            _patch(options, roi),
            dim,
            options.depth or depth,
            heads,
            position=options.position,
            attention_gain=options.attention_gain,
            drop_path=drop_path,
        )


def _patch(options: ViTOptions, roi: tuple[int, ...]) -> tuple[int, ...]:
    return options.patch * len(roi) if len(options.patch) == 1 else options.patch


@hookimpl
def mae_bench_backbones() -> list[ViT]:
    """The Vision Transformer."""
    return [ViT()]
