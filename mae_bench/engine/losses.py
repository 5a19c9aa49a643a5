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


def cox_loss(risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Negative log partial likelihood of Cox (1972), Breslow's way with ties, mean over the events; all (B,).

    Each event is compared with all cases of the batch that were still at risk. Zero when there is no event.
    """
    at_risk = time[None, :] >= time[:, None]
    total = risk[None, :].masked_fill(~at_risk, -torch.inf).logsumexp(dim=1)
    return ((total - risk) * event).sum() / event.sum().clamp(min=1)


class SupervisedLoss(nn.Module):
    """A task model with its loss: forward(batch) gives `loss`, as the training loop wants it.

    Segmentation: Dice with squared denominators, the background included, smoothing 0 and 1e-6, and with `dice_ce` the
    cross-entropy beside it. Classification: binary cross-entropy, the mean over findings (PAPER 3b). Survival: the
    Cox partial likelihood within the batch. inputs: from a batch to network input (`engine.inputs.Inputs`).
    """

    table: Tensor

    def __init__(self, model: nn.Module, task: Task, kind: str, inputs: nn.Module) -> None:
        super().__init__()
        self.model, self.task, self.kind, self.inputs = model, task, kind, inputs
        if task.kind == "segmentation":
            self.register_buffer("table", target_table(task), persistent=False)
            self.dice = DiceLoss(
                sigmoid=task.overlapping, softmax=not task.overlapping, squared_pred=True, smooth_nr=0.0, smooth_dr=1e-6
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """batch: images and labels or findings."""
        given: Any = batch
        logits = self.model(self.inputs(batch)).float()
        if self.task.kind == "classification":
            return {"loss": F.binary_cross_entropy_with_logits(logits, given.findings)}
        if self.task.kind == "survival":
            return {"loss": cox_loss(logits[:, 0], *given.findings.unbind(1))}
        target = self.table[given.labels.long()]
        if self.task.overlapping:
            target = target.movedim(-1, 1)
            cross = F.binary_cross_entropy_with_logits(logits, target) if self.kind == "dice_ce" else 0.0
        else:
            cross = F.cross_entropy(logits, target) if self.kind == "dice_ce" else 0.0
            # Not `one_hot`: its 64-bit counts would be the largest tensor of the step.
            target = torch.zeros_like(logits).scatter_(1, target[:, None], 1)
        return {"loss": self.dice(logits, target) + cross}
