"""Supervised losses against MONAI's and formulas written out by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from mae_bench.data.crops import Batch
from mae_bench.engine.losses import SupervisedLoss, target_table
from mae_bench.task import Region, Task

# Label values as files have them: not contiguous, one region of two values, one value (7) that belongs to none.
ORGANS = Task(
    kind="segmentation",
    channels=("CT",),
    regions=(Region(name="liver", labels=(3,), paint=3), Region(name="kidneys", labels=(5, 200), paint=5)),
)
TUMOUR = Task(
    kind="segmentation",
    channels=("FLAIR",),
    overlapping=True,
    regions=(
        Region(name="WT", labels=(1, 2, 3), paint=1),
        Region(name="TC", labels=(2, 3), paint=2),
        Region(name="ET", labels=(3,), paint=3),
    ),
)
FINDINGS = Task(kind="classification", channels=("x-ray",), findings=("mass", "nodule"))
SMOOTH = {"squared_pred": True, "smooth_nr": 0.0, "smooth_dr": 1e-6}


class Fixed(nn.Module):
    """Answers with its logits, whatever the image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


class AsIs(nn.Module):
    """The images of a batch."""

    def forward(self, batch: Any) -> Any:
        return batch.images


def make(task: Task, kind: str, values: list[int], ndim: int = 3) -> tuple[SupervisedLoss, Any, Tensor, Tensor]:
    """The loss on random logits and labels, with the logits and labels themselves."""
    rng = np.random.default_rng(ndim)
    shape = (4, 5, 6)[:ndim]
    labels = torch.from_numpy(rng.choice(values, size=(2, *shape)).astype(np.uint8))
    logits = torch.from_numpy(rng.normal(size=(2, task.outputs, *shape)))
    batch: Any = Batch(torch.zeros(2, 1, *shape), labels, None, None)  # type: ignore[arg-type]
    return SupervisedLoss(Fixed(logits), task, kind, AsIs()), batch, logits, labels


def by_hand(probability: Tensor, truth: Tensor) -> Tensor:
    """Mean over images and channels of 1 - 2 sum(p t) / (sum(p^2) + sum(t^2) + 1e-6)."""
    losses = []
    for p, t in zip(probability.flatten(0, 1), truth.flatten(0, 1), strict=True):
        losses.append(1 - 2 * (p * t).sum() / (p.square().sum() + t.square().sum() + 1e-6))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("ndim", [2, 3])
def test_exclusive_classes(ndim: int) -> None:
    loss, batch, logits, labels = make(ORGANS, "dice_ce", [0, 3, 5, 7, 200], ndim)
    classes = torch.zeros_like(labels, dtype=torch.long)
    classes[labels == 3] = 1
    classes[(labels == 5) | (labels == 200)] = 2
    found = loss(batch)
    library = DiceCELoss(softmax=True, to_onehot_y=True, include_background=True, **SMOOTH)
    assert float(found["loss"].detach()) == pytest.approx(float(library(logits, classes[:, None])), rel=1e-5)
    probability = logits.softmax(1)
    truth = torch.stack([classes == number for number in range(3)], 1).double()
    cross = -(truth * probability.log()).sum(1).mean()
    assert float(found["loss"].detach()) == pytest.approx(float(by_hand(probability, truth) + cross), rel=1e-5)
    assert list(found) == ["loss"]
    dice, *_ = make(ORGANS, "dice", [0, 3, 5, 7, 200], ndim)
    assert float(dice(batch)["loss"].detach()) == pytest.approx(float(by_hand(probability, truth)), rel=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_overlapping_regions(ndim: int) -> None:
    loss, batch, logits, labels = make(TUMOUR, "dice_ce", [0, 1, 2, 3], ndim)
    truth = torch.stack([labels >= lowest for lowest in (1, 2, 3)], 1).double()
    probability = logits.sigmoid()
    cross = -(truth * probability.log() + (1 - truth) * (1 - probability).log()).mean()
    assert float(loss(batch)["loss"].detach()) == pytest.approx(float(by_hand(probability, truth) + cross), rel=1e-5)
    dice, *_ = make(TUMOUR, "dice", [0, 1, 2, 3], ndim)
    found = float(dice(batch)["loss"].detach())
    assert found == pytest.approx(float(by_hand(probability, truth)), rel=1e-5)
    assert found == pytest.approx(float(DiceLoss(sigmoid=True, **SMOOTH)(logits, truth)), rel=1e-5)


def test_findings() -> None:
    logits, truth = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = SupervisedLoss(Fixed(logits), FINDINGS, "dice_ce", AsIs())
    found = float(loss(SimpleNamespace(images=None, findings=truth))["loss"].detach())
    p = logits.sigmoid()
    assert found == pytest.approx(float(-(truth * p.log() + (1 - truth) * (1 - p).log()).mean()), rel=1e-6)


def test_target_tables() -> None:
    classes = target_table(ORGANS)
    assert (classes.shape, classes.dtype) == ((256,), torch.long)
    assert {value: int(number) for value, number in enumerate(classes) if number} == {3: 1, 5: 2, 200: 2}
    members = target_table(TUMOUR)
    assert members.shape == (256, 3)
    assert members[:4].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert members[4:].sum() == 0


@pytest.mark.parametrize("task", [ORGANS, TUMOUR])
def test_the_right_answer_costs_nothing(task: Task) -> None:
    loss, batch, _, labels = make(task, "dice_ce", [0, 1, 2, 3, 5])
    target = target_table(task)[labels.long()]
    memberships = target if task.overlapping else nn.functional.one_hot(target, task.outputs)
    sure = 200.0 * (memberships.movedim(-1, 1).float() - 0.5)
    perfect = SupervisedLoss(Fixed(sure), task, "dice_ce", AsIs())
    assert float(perfect(batch)["loss"].detach()) < 1e-4 < float(loss(batch)["loss"].detach())


@pytest.mark.parametrize("task", [ORGANS, TUMOUR])
def test_an_absent_region_gives_finite_gradients(task: Task) -> None:
    """Small crops often hold background alone; the numerator has no smoothing."""
    loss, batch, *_ = make(task, "dice_ce", [0])
    loss(batch)["loss"].backward()
    gradient = loss.model.logits.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_half_precision_logits_are_compared_in_full() -> None:
    loss, batch, logits, _ = make(ORGANS, "dice_ce", [0, 3, 5])
    half = SupervisedLoss(Fixed(logits.bfloat16()), ORGANS, "dice_ce", AsIs())
    found = half(batch)["loss"]
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(loss(batch)["loss"].detach()), rel=0.02)


def test_the_table_moves_with_the_module_and_stays_out_of_checkpoints() -> None:
    loss, *_ = make(ORGANS, "dice", [0])
    assert "table" in dict(loss.named_buffers())
    assert list(loss.state_dict()) == ["model.logits"]
