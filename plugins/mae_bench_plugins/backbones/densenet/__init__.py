"""`densenet121`: densely connected network (Huang et al. 2017), torchvision's in 2-D and MONAI's in 3-D."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mae_bench import hookimpl
from mae_bench.errors import UsageError
from mae_bench.interfaces import Words
from mae_bench.values import Options

if TYPE_CHECKING:
    from torch import nn

STRIDE = 32


class DenseNetOptions(Options):
    """`densenet121` has no options."""


class DenseNet121:
    """Builds the densely connected network."""

    name = "densenet121"
    summary = "densely connected network of 121 layers, 2-D and 3-D"
    Options = DenseNetOptions

    def provides(self, options: DenseNetOptions) -> Words:
        """A map and a pooled feature; no tokens, since a convolution cannot leave masked patches out."""
        return frozenset({"map", "pooled", "2d", "3d"})

    def needs(self, options: DenseNetOptions) -> Words:
        """Takes any image."""
        return frozenset()

    def check(self, options: DenseNetOptions, roi: tuple[int, ...]) -> None:
        """Refuse a crop that is not a whole number of strides."""
        if any(size % STRIDE for size in roi):
            raise UsageError(
                f"a crop of {roi} is not a multiple of {STRIDE}, as {self.name} needs: --set recipe.roi=..."
            )

    def build(self, options: DenseNetOptions, channels: int, roi: tuple[int, ...], drop_path: float = 0.0) -> nn.Module:
        """A new encoder with random weights. It has no blocks to leave out: `drop_path` does nothing here."""
        from mae_bench_plugins.backbones.densenet.model import DenseNetEncoder

        self.check(options, roi)
        return DenseNetEncoder(channels, roi)


@hookimpl
def mae_bench_backbones() -> list[DenseNet121]:
    """The network of 121 layers."""
    return [DenseNet121()]
