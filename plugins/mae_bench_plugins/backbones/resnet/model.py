"""The residual encoder: the library's layers under their own names, so that published weights fit as they are."""

from typing import Any, Literal

import timm
from monai.networks import nets
from torch import Tensor, nn

from mae_bench.errors import UsageError
from mae_bench.interfaces import Features

STRIDE = 32


class ResNetEncoder(nn.Module):
    """x: (B, C, *S), every axis a multiple of 32, gives a map at a 32nd of the size and its mean.

    Args:
        depth: 18 or 50.
        channels: image channels.
        roi: image size in voxels, per axis.
        drop_path: stochastic depth of the last block, 2-D only.
    """

    def __init__(self, depth: Literal[18, 50], channels: int, roi: tuple[int, ...], drop_path: float) -> None:
        super().__init__()
        self.channels, self.depth = channels, 4
        self.patch = (STRIDE,) * len(roi)
        self.grid = tuple(size // STRIDE for size in roi)
        net = _plane(depth, channels, drop_path) if len(roi) == 2 else _volume(depth, channels)
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.relu = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.dim = 512 if depth == 18 else 2048

    def forward(self, x: Tensor) -> Features:
        """See `Features`; the map is the last stage's."""
        places = x[0, 0].numel() // STRIDE ** (x.ndim - 2)
        if self.training and len(x) * places == 1:
            raise UsageError(
                f"batch normalisation needs more than one value per feature, and one crop of {tuple(x.shape[2:])} "
                "gives one: a larger --set recipe.roi=..., or --set pretrain.batch=..., finetune.batch=... of 2 or more"
            )
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return Features(x.flatten(2).mean(dim=2), x, ())

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters from input to output: stem, each stage, and the last norm, above which there is only the head."""
        last: Any = self.layer4[-1]
        norm = list((last.bn2 if self.dim == 512 else last.bn3).parameters())
        stages = [list(stage.parameters()) for stage in (self.layer1, self.layer2, self.layer3, self.layer4)]
        stages[-1] = [parameter for parameter in stages[-1] if all(parameter is not other for other in norm)]
        return [[*self.conv1.parameters(), *self.bn1.parameters()], *stages, norm]


def _plane(depth: int, channels: int, drop_path: float) -> Any:
    return timm.create_model(f"resnet{depth}", in_chans=channels, num_classes=0, drop_path_rate=drop_path)


def _volume(depth: int, channels: int) -> Any:
    """MONAI's network with the stem, strides and shortcuts of the 2-D one, so that its kernels can be inflated."""
    build = nets.resnet18 if depth == 18 else nets.resnet50
    return build(
        spatial_dims=3, n_input_channels=channels, conv1_t_size=7, conv1_t_stride=2, shortcut_type="B",
        bias_downsample=False, feed_forward=False,
    )  # fmt: skip
