"""Matrix products through oneDNN on processors where PyTorch's default library is slow.

PyTorch multiplies float32 matrices on x86 with MKL, which takes a slow path on processors that are not Intel's: on an
AMD EPYC (Zen 5) it reaches 200 GFLOP/s where oneDNN, which PyTorch also carries, reaches 450. Same arithmetic in
float32, another order of summation; `benchmarks/speed/test_mae_step.py` prints what it is worth.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@cache
def preferred() -> bool:
    """Whether oneDNN should be used here: an x86 processor that is not Intel's, and a PyTorch that has the kernel."""
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return (
        "AuthenticAMD" in processor
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """A (M, K) times the transpose of b (N, K), plus bias."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return result


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        # Through this very function, so that second derivatives (gradient penalties) work too.
        return (
            _LinearFunction.apply(grad, weight.t(), None) if wanted[0] else None,
            _LinearFunction.apply(grad.t(), x.t(), None) if wanted[1] else None,
            grad.sum(0) if ctx.biased and wanted[2] else None,
        )


class OneDNNLinear(nn.Linear):
    """nn.Linear with the same parameters; falls back to it for anything but float32 on the CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if input.device.type != "cpu" or input.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.linear(input, self.weight, self.bias)
        flat = input.reshape(-1, input.shape[-1])
        result: Tensor = _LinearFunction.apply(flat, self.weight, self.bias)
        return result.view(*input.shape[:-1], -1)


def use_onednn(model: nn.Module) -> nn.Module:
    """Let every linear layer of `model` multiply through oneDNN, if that is preferred here. Parameters stay."""
    if preferred():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDNNLinear
    return model
