"""Batch norms over groups of samples: what several GPUs do to MoCo, within one process.

Query and key of one image must not share the statistics they are normalised by: by those alone a network recognises
the pair, and learns nothing else (He et al. 2020, section 3.3, "Shuffling BN"). The authors shuffle images between
GPUs; here each process cuts its batch into groups, so no image travels and one process is enough.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from mae_bench.errors import UsageError


def has_batch_norm(module: nn.Module) -> bool:
    """Whether the samples of a batch see each other in it."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())


def count_groups(batch: int, size: int) -> int:
    """Into how many equal groups a batch is cut: the largest groups of 2 to `size` samples that leave at least two.

    Fewer than four samples are one group: they share their statistics, and nothing helps.

    Raises:
        UsageError: the batch cannot be cut so.
    """
    if batch < 4:
        return 1
    sizes = [each for each in range(2, min(size, batch // 2) + 1) if batch % each == 0]
    if not sizes:
        raise UsageError(
            f"{batch} crops cannot be cut into equal groups of 2 to {size} for the batch norms of MoCo v2: "
            "change --set pretrain.batch=... or --set pretrain.group=..."
        )
    return batch // sizes[-1]


class GroupedBatchNorm(TorchFunctionMode):
    """While it is entered, batch norms that train take their statistics from each of `groups` groups by itself.

    Sample i is of group i % groups. Works for whatever calls `F.batch_norm`, PyTorch's classes and timm's alike.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch for each function while the mode is entered."""
        if func is F.batch_norm and self.groups > 1:
            return _batch_norm(self.groups, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    groups: int,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` with groups as further channels: one kernel, no copy. Running statistics move by the mean."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    batch, channels = input.shape[:2]
    mean, variance, scale, shift = (
        None if each is None else each.repeat(groups) for each in (running_mean, running_var, weight, bias)
    )
    wide = input.reshape(batch // groups, groups * channels, *input.shape[2:])
    result = F.batch_norm(wide, mean, variance, scale, shift, True, momentum, eps).reshape(input.shape)
    with torch.no_grad():
        for kept, moved in ((running_mean, mean), (running_var, variance)):
            if kept is not None and moved is not None:
                kept.copy_(moved.view(groups, channels).mean(0))
    return result
