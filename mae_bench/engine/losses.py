"""Supervised losses of a task, on label values as they are in the files."""

from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from mae_bench.data.crops import Batch
from mae_bench.task import Task


def target_table(task: Task) -> Tensor:
    """From label value to target: (256,) class numbers, or (256, regions) memberships when regions overlap."""
    if task.overlapping:
        table = torch.zeros(256, len(task.regions))
        for column, region in enumerate(task.regions):
            table[list(region.labels), column] = 1
        return table
    classes = torch.zeros(256, dtype=torch.long)
    for number, region in enumerate(task.regions, 1):
        classes[list(region.labels)] = number
    return classes


class SupervisedLoss(nn.Module):
    """A task model with its loss: forward(batch) gives `loss`, as the training loop wants it.

    Segmentation: Dice with squared denominators, the background included, smoothing 0 and 1e-6, and with `dice_ce` the
    cross-entropy beside it. Classification: binary cross-entropy, the mean over findings (PAPER 3b).
    """

    table: Tensor

    def __init__(self, model: nn.Module, task: Task, kind: str) -> None:
        super().__init__()
        self.model, self.task, self.kind = model, task, kind
        if task.kind == "segmentation":
            self.register_buffer("table", target_table(task), persistent=False)
            self.dice = DiceLoss(
                sigmoid=task.overlapping, softmax=not task.overlapping, squared_pred=True, smooth_nr=0.0, smooth_dr=1e-6
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images and labels or findings."""
        inputs: Any = batch
        logits = self.model(inputs.images).float()
        if self.task.kind == "classification":
            return {"loss": F.binary_cross_entropy_with_logits(logits, inputs.findings)}
        target = self.table[inputs.labels.long()]
        if self.task.overlapping:
            target = target.movedim(-1, 1)
            cross = F.binary_cross_entropy_with_logits(logits, target) if self.kind == "dice_ce" else 0.0
        else:
            cross = F.cross_entropy(logits, target) if self.kind == "dice_ce" else 0.0
            target = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
        return {"loss": self.dice(logits, target) + cross}
