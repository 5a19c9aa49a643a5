"""`resnet18`, `resnet50`: residual networks (He et al. 2016), timm's in 2-D, MONAI's in 3-D, under the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mae_bench import hookimpl
from mae_bench.errors import UsageError
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

STRIDE = 32


class ResNetOptions(Options):
    """The residual networks have no options: their depth is in their name."""


class ResNet:
    """Builds the residual network of one depth."""

    Options = ResNetOptions

    def __init__(self, depth: Literal[18, 50]) -> None:
        self.depth = depth
        self.name = f"resnet{depth}"
        self.summary = f"residual network of {depth} layers, 2-D and 3-D"

    def provides(self, options: ResNetOptions) -> Words:
        """A map and a pooled feature; no tokens, since a convolution cannot leave masked patches out."""
        return frozenset({"map", "pooled", "2d", "3d"})

    def needs(self, options: ResNetOptions) -> Words:
        """Takes any image."""
        return frozenset()

    def check(self, options: ResNetOptions, roi: tuple[int, ...]) -> None:
        """Refuse a crop that is not a whole number of strides."""
        if any(size % STRIDE for size in roi):
            raise UsageError(
                f"a crop of {roi} is not a multiple of {STRIDE}, as {self.name} needs: --set recipe.roi=..."
            )

    def build(self, options: ResNetOptions, channels: int, roi: tuple[int, ...], drop_path: float = 0.0) -> nn.Module:
        """A new encoder with random weights. Stochastic depth is in timm's networks only, so 3-D goes without."""
        from mae_bench_plugins.backbones.resnet.model import ResNetEncoder

        self.check(options, roi)
        return ResNetEncoder(self.depth, channels, roi, drop_path)


@hookimpl
def mae_bench_backbones() -> list[ResNet]:
    """Two depths."""
    return [ResNet(18), ResNet(50)]
