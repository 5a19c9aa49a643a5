"""The layers of StyleGAN2 (Karras et al. 2020, appendix B) in plain PyTorch.

Weights are drawn from N(0, 1) and scaled by 1 / sqrt(fan in) when they are used (equalised learning rate, Karras et
al. 2018, section 4.1). Activations are sqrt(2) times a leaky ReLU of slope 0.2, and a residual sum is divided by
sqrt(2). Both factors are multiplied into weights and biases, which is the same since a leaky ReLU is positively
homogeneous, and saves a pass over the maps for each.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
GAIN = math.sqrt(2)
TAPS = (1.0, 3.0, 3.0, 1.0)  # low-pass filter before halving and after doubling
EPS = 1e-8


class Blur(nn.Module):
    """Low-pass filter [1, 3, 3, 1] along both axes, each map by itself."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(TAPS) / sum(TAPS)
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor, padding: int, stride: int = 1, reflect: bool = False) -> Tensor:
        """(B, C, H, W) to (B, C, H + 2 padding - 3, W + 2 padding - 3), of which every `stride`-th is computed."""
        if reflect:
            x, padding = F.pad(x, [padding] * 4, mode="reflect"), 0
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.expand(channels, 1, 4, 4), stride=stride, padding=padding, groups=channels)

    def upsample(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2 H, 2 W): zeros in between, then the filter with four times its weight."""
        channels = x.shape[1]
        kernel = 4 * self.kernel.expand(channels, 1, 4, 4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: (..., inputs) to (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, *, activate: bool = False, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.activate, self.gain = activate, GAIN if activate else 1.0
        self.scale = self.gain / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """The layer, and its activation if it has one."""
        y = F.linear(x, self.weight * self.scale, self.bias * self.gain)
        return F.leaky_relu(y, SLOPE) if self.activate else y


class Conv(nn.Module):
    """Convolution with equalised learning rate; `halve` filters and takes every second place.

    Maps keep their size, or floor(size / 2) of it. reflect: what lies beyond the border mirrors the map, else zeros.
    activate: followed by the activation. gain: factor on the result; default sqrt(2) with activation, 1 without.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        halve: bool = False,
        reflect: bool = False,
        bias: bool = True,
        activate: bool = True,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.blur = Blur() if halve else None
        self.activate, self.reflect, self.size = activate, reflect, size
        self.gain = (GAIN if activate else 1.0) if gain is None else gain
        self.scale = self.gain / math.sqrt(inputs * size**2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        stride, padding = 1, self.size // 2
        if self.blur is not None:
            # A 1 x 1 convolution does not mix places, so only the places that stay are filtered.
            pointwise = self.size == 1
            x = self.blur(x, padding + 1, stride=2 if pointwise else 1, reflect=self.reflect)
            stride, padding = 1 if pointwise else 2, 0
        elif self.reflect and padding:
            x, padding = F.pad(x, [padding] * 4, mode="reflect"), 0
        bias = None if self.bias is None else self.bias * self.gain
        y = F.conv2d(x, self.weight * self.scale, bias, stride, padding)
        return F.leaky_relu(y, SLOPE) if self.activate else y


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 one, (B, inputs, H, W) to (B, outputs, H', W'), halved on request.

    The first convolution already has all outputs: only so are the published sizes met (PAPER 5b).
    """

    def __init__(self, inputs: int, outputs: int, *, halve: bool = True, reflect: bool = False) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, 3, reflect=reflect)
        self.second = Conv(outputs, outputs, 3, halve=halve, reflect=reflect, gain=1.0)  # sqrt(2) / sqrt(2)
        self.skip = Conv(
            inputs, outputs, 1, halve=halve, reflect=reflect, bias=False, activate=False, gain=1 / math.sqrt(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways over sqrt(2)."""
        y: Tensor = self.second(self.first(x)) + self.skip(x)
        return y


class StyledConv(nn.Module):
    """3 x 3 convolution modulated by a style, demodulated, with noise, bias and activation; doubles on request.

    A style scales the weights per input channel. Scaling the input instead, and the output by the norm of the weights
    so scaled, is the same (Karras et al. 2020, equations 1 and 3) and leaves one convolution for the whole batch.
    """

    def __init__(self, inputs: int, outputs: int, style: int, *, double: bool = False, gain: float = GAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise = nn.Parameter(torch.zeros(1))
        self.modulation = EqualLinear(style, inputs, bias=1.0)
        self.blur = Blur() if double else None
        self.gain, self.scale = gain, 1 / math.sqrt(inputs * 9)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, style) to (B, outputs, H', W')."""
        y = self.modulated(x, self.modulation(style))
        noise = torch.randn(len(y), 1, *y.shape[2:], device=y.device, dtype=y.dtype)
        shift = self.noise.to(y.dtype) * noise + self.bias.to(y.dtype)[:, None, None]
        return F.leaky_relu(torch.add(y, shift, alpha=self.gain), SLOPE)

    def modulated(self, x: Tensor, scales: Tensor) -> Tensor:
        """The convolution for scales (B, inputs) of the input channels, times the gain."""
        weight = self.weight * self.scale
        with torch.autocast(x.device.type, enabled=False):  # the norm of thousands of weights wants its digits
            norms = scales.to(weight.dtype).square() @ weight.square().sum(dim=(2, 3)).t()
            demodulation = self.gain * torch.rsqrt(norms + EPS)
        x = x * scales.to(x.dtype)[:, :, None, None]
        if self.blur is None:
            y = F.conv2d(x, weight, padding=1)
        else:
            y = self.blur(F.conv_transpose2d(x, 4 * weight.transpose(0, 1), stride=2), padding=1)
        return y * demodulation.to(y.dtype)[:, :, None, None]


class StyledBlock(nn.Module):
    """Two styled convolutions beside a 1 x 1 one, or beside nothing where the maps keep their shape."""

    def __init__(self, inputs: int, outputs: int, style: int, *, double: bool) -> None:
        super().__init__()
        self.first = StyledConv(inputs, outputs, style, double=double)
        self.second = StyledConv(outputs, outputs, style, gain=1.0)  # sqrt(2) / sqrt(2)
        changes = double or inputs != outputs
        self.skip = Conv(inputs, outputs, 1, bias=False, activate=False, gain=1 / GAIN) if changes else None
        self.blur = Blur() if double else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, style) to (B, outputs, H', W')."""
        y = self.second(self.first(x, style), style)
        beside = x / GAIN if self.skip is None else self.skip(x)
        total: Tensor = y + (beside if self.blur is None else self.blur.upsample(beside))
        return total
