"""The densely connected encoder, under torchvision's names in 2-D and 3-D, so that its weights fit as they are."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks import nets
from torch import Tensor, nn
from torchvision.models import densenet121  # type: ignore[import-untyped]

from mae_bench.errors import UsageError
from mae_bench.interfaces import Features

STRIDE = 32
DIM = 1024


class DenseNetEncoder(nn.Module):
    """x: (B, C, *S), every axis a multiple of 32, gives a map at a 32nd of the size and its mean.

    Args:
        channels: image channels.
        roi: image size in voxels, per axis.
    """

    def __init__(self, channels: int, roi: tuple[int, ...]) -> None:
        super().__init__()
        self.channels, self.depth, self.dim = channels, 4, DIM
        self.patch = (STRIDE,) * len(roi)
        self.grid = tuple(size // STRIDE for size in roi)
        self.features: Any = _plane(channels) if len(roi) == 2 else _volume(channels)

    def forward(self, x: Tensor) -> Features:
        """See `Features`; the map is that after the last norm."""
        places = x[0, 0].numel() // STRIDE ** (x.ndim - 2)
        if self.training and len(x) * places == 1:
            raise UsageError(
                f"batch normalisation needs more than one value per feature, and one crop of {tuple(x.shape[2:])} "
                "gives one: a larger --set recipe.roi=..., or --set pretrain.batch=..., finetune.batch=... of 2 or more"
            )
        x = F.relu(self.features(x))
        return Features(x.flatten(2).mean(dim=2), x, ())

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters from input to output: stem, each dense block with the transition after it, final norm."""
        groups: list[list[nn.Parameter]] = [[] for _ in range(6)]
        for name, part in self.features.named_children():
            number = 5 if name == "norm5" else int(name[-1]) if name[:-1] in ("denseblock", "transition") else 0
            groups[number] += part.parameters()
        return groups


class DenseLayer(nn.Sequential):
    """What a layer adds, beside what it was given."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, *S) gives (B, C + growth, *S)."""
        added: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return torch.cat([input, added], dim=1)


def _plane(channels: int) -> nn.Module:
    features: Any = densenet121(weights=None).features
    if channels != 3:
        features.conv0 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(features.conv0.weight)
    return features  # type: ignore[no-any-return]


def _volume(channels: int) -> nn.Module:
    """MONAI's layers; one level of nesting less, which gives them torchvision's names."""
    features: Any = nets.DenseNet121(spatial_dims=3, in_channels=channels, out_channels=1).features
    for block in features.children():
        for name, layer in list(block.named_children()):
            if name.startswith("denselayer"):
                setattr(block, name, DenseLayer(OrderedDict(layer.layers.named_children())))
    return features  # type: ignore[no-any-return]
