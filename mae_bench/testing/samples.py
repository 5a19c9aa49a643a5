"""Small made-up images, labels and tasks, the same every time, and the small encoders that methods are tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.data.crops import Batch
from mae_bench.errors import UsageError
from mae_bench.interfaces import Wants, Words
from mae_bench.recipe import Stage
from mae_bench.registry import Registry
from mae_bench.task import Region, Task
from mae_bench.testing.card import TASKS
from mae_bench.testing.contract import DoesNotApply, Subject
from mae_bench.values import Options

SIDES = (32, 64, 96, 128, 224)  # of crops, tried from the smallest
BATCH = 4


def images(roi: tuple[int, ...], channels: int = 1, views: int = 1, batch: int = BATCH) -> Tensor:
    """Smooth random images (B, C, *roi), or (B, V, C, *roi) whose views differ by noise; always the same."""
    source = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, channels, *(max(1, size // 8) for size in roi), generator=source)
    smooth = F.interpolate(coarse, roi, mode="bilinear" if len(roi) == 2 else "trilinear")
    if views == 1:
        return smooth
    noise = torch.randn(batch, views, channels, *roi, generator=source)
    return smooth[:, None] + 0.1 * noise


def masks(roi: tuple[int, ...], views: int = 1, batch: int = BATCH) -> Tensor:
    """A box in the middle of each image, (B, *roi) or (B, V, *roi), uint8."""
    made = torch.zeros(batch, *((views,) if views > 1 else ()), *roi, dtype=torch.uint8)
    box: tuple[slice, ...] = tuple(slice(size // 4, size // 4 + size // 2) for size in roi)
    made[(slice(None),) * (made.ndim - len(roi)) + box] = 1
    return made


def objective_inputs(wants: Wants, roi: tuple[int, ...], channels: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch and the keywords with which the engine calls an objective."""
    more = {"masks": masks(roi, wants.views)} if wants.masks else {}
    return images(roi, channels, wants.views), more


def tasks(axes: int) -> dict[str, Task]:
    """A task of each kind, and a segmentation whose regions overlap."""
    regions = tuple(Region(name=f"part {value}", labels=(value,), paint=value) for value in (1, 2))
    common: dict[str, Any] = {"channels": ("image",), "ndim": axes}
    labels = {1: "part 1", 2: "part 2"}
    return {
        "segmentation": Task(kind="segmentation", regions=regions, labels=labels, **common),
        "overlapping segmentation": Task(
            kind="segmentation", regions=regions, labels=labels, overlapping=True, **common
        ),
        "classification": Task(kind="classification", findings=("mass", "nodule", "effusion"), **common),
        "survival": Task(kind="survival", findings=("time", "event"), **common),
    }


def labelled_batch(task: Task, roi: tuple[int, ...]) -> Batch:
    """Images with the labels or findings of `task`, as tensors, as the loop hands them to a model."""
    labels = masks(roi) if task.kind == "segmentation" else None
    findings = None
    if task.kind == "classification":
        findings = (torch.arange(BATCH)[:, None] % torch.arange(2, 2 + len(task.findings)) == 0).float()
    if task.kind == "survival":
        findings = torch.stack([torch.arange(1.0, 1 + BATCH), torch.ones(BATCH)], dim=1)
    made: Any = Batch(images(roi, len(task.channels)), labels, findings, None)  # type: ignore[arg-type]
    return made  # type: ignore[no-any-return]


def stage(rate: float = 1e-3, steps: int = 1) -> Stage:
    """A training stage at a constant rate."""
    return Stage(steps=steps, batch=BATCH, lr=rate, warmup=0, schedule="constant")


def axes_of(words: Words) -> tuple[int, ...]:
    """Numbers of spatial axes that a backbone providing `words` can do."""
    return tuple(axes for axes in (2, 3) if f"{axes}d" in words)


def small_rois(backbone: Any, options: Options, axes: int) -> Iterator[tuple[int, ...]]:
    """Crop sizes that the backbone accepts, from the smallest."""
    for side in SIDES:
        roi = (side,) * axes
        try:
            backbone.check(options, roi)
        except UsageError:
            continue
        yield roi


@dataclass(frozen=True)
class Place:
    """A backbone with options and a crop size on which a method is tried."""

    backbone: Any
    options: Options
    roi: tuple[int, ...]

    def encoder(self, channels: int = 1, seed: int = 0) -> nn.Module:
        """A new encoder, drawn under `seed`."""
        torch.manual_seed(seed)
        made: nn.Module = self.backbone.build(self.options, channels, self.roi)
        return made


def find_place(subject: Subject, axes: int, attempt: Callable[[Place], object]) -> Place:
    """The first backbone of the registry, at the smallest crop, that the subject needs and `attempt` does not refuse.

    Raises:
        DoesNotApply: there is none; with the reason of the last refusal.
    """
    needs: Words = subject.plugin.needs(subject.options)
    by_data = TASKS | _words_of_data(subject.registry)
    listed = [each for each in subject.registry.all() if each.kind == "backbone"]
    reason = "no backbone provides what it needs"
    for each in sorted(listed, key=lambda each: each.plugin.name != "vit"):
        own = Subject(each, subject.registry, Path())
        try:
            words = each.plugin.provides(own.options)
        except DoesNotApply:
            continue
        if f"{axes}d" not in words or needs - words - by_data or {"2d", "3d"} & needs - {f"{axes}d"}:
            continue
        for roi in small_rois(each.plugin, own.options, axes):
            place = Place(each.plugin, own.options, roi)
            try:
                attempt(place)
            except UsageError as error:
                reason = str(error)
                continue
            return place
    raise DoesNotApply(f"{axes}-D: {reason}")


def find_places(subject: Subject, attempt: Callable[[Place], object]) -> list[Place]:
    """A place in 2-D and one in 3-D, or the one there is.

    Raises:
        DoesNotApply: there is none.
    """
    found: list[Place] = []
    reasons = []
    for axes in (2, 3):
        try:
            found.append(find_place(subject, axes, attempt))
        except DoesNotApply as error:
            reasons.append(str(error))
    if not found:
        raise DoesNotApply("; ".join(reasons))
    return found


def _words_of_data(registry: Registry) -> Words:
    found: Words = frozenset()
    for each in registry.all():
        if each.kind == "dataset":
            found |= each.plugin.provides(Subject(each, registry, Path()).options)
    return found
