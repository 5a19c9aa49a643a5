"""From a task model and a prepared case to a label map on the grid where it is scored."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from mae_bench.data.prepared import CaseFacts, Prepared, box_around
from mae_bench.data.preprocess import to_native
from mae_bench.recipe import Recipe
from mae_bench.task import Task

WINDOWS = 4  # windows per forward pass, as the paper (PAPER 3b)


def predictions(
    model: nn.Module, prepared: Prepared, cases: Sequence[str], task: Task, recipe: Recipe, accelerator: Accelerator
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each case with the probabilities of every output, in the order of `cases`.

    (outputs, *shape) for segmentation, one volume in memory at a time; (outputs,) for classification, for survival the
    log-risk, (1,): images that have one size go through the model `recipe.finetune.batch` at a time.
    """
    if task.kind == "segmentation":
        for case in cases:
            yield case, _segmented(model, prepared.case(case).image(), task, recipe, accelerator)
        return
    batch = recipe.finetune.batch
    for first in range(0, len(cases), batch):
        some = cases[first : first + batch]
        logits = _classified(model, middle_crops(prepared, some, recipe.roi), accelerator)
        # A log-risk is a score as it is; findings get probabilities.
        yield from zip(some, (logits if task.kind == "survival" else logits.sigmoid()).cpu().numpy(), strict=True)


@torch.inference_mode()
def _segmented(
    model: nn.Module, image: NDArray[np.float16], task: Task, recipe: Recipe, accelerator: Accelerator
) -> NDArray[np.float32]:
    volume = torch.from_numpy(np.array(image))[None].to(accelerator.device).float()
    with accelerator.autocast():
        logits = sliding_window_inference(
            volume, recipe.roi, WINDOWS, model, overlap=recipe.finetune.overlap, mode="constant"
        )
    logits = logits[0].float()
    scores = logits.sigmoid() if task.overlapping else logits.softmax(0)
    return np.asarray(scores.cpu().numpy())


@torch.inference_mode()
def _classified(model: nn.Module, images: Tensor, accelerator: Accelerator) -> Tensor:
    with accelerator.autocast():
        logits: Tensor = model(images.to(accelerator.device).float())
    return logits.float()


def middle_crops(prepared: Prepared, cases: Sequence[str], roi: tuple[int, ...]) -> Tensor:
    """The middles of some cases, (B, C, *roi) float16."""
    images = (torch.from_numpy(np.array(prepared.case(case).image()))[None] for case in cases)
    return torch.cat([middle_crop(image, roi) for image in images])


def middle_crop(image: Tensor, roi: tuple[int, ...]) -> Tensor:
    """The middle of (B, C, *shape), zeros where it is smaller than `roi`."""
    box = box_around(tuple(size // 2 for size in image.shape[2:]), roi, tuple(image.shape[2:]))
    crop = image[(slice(None), slice(None), *box)]
    missing = [size - there for size, there in zip(roi, crop.shape[2:], strict=True)]
    return F.pad(crop, [side for size in reversed(missing) for side in (0, size)])


def label_map(scores: NDArray[np.float32], task: Task, facts: CaseFacts | None = None) -> NDArray[np.uint8]:
    """Paint the label map that probabilities amount to.

    Args:
        scores: (outputs, *shape) on the prepared grid.
        facts: when given, the map is on the whole native image in RAS order, else on the prepared grid.

    Returns:
        Label values. Overlapping regions are painted in order where they exceed a half; exclusive ones where they win.
    """
    outputs = _on_grid(scores, facts)
    if task.overlapping:
        painted = None
        for region, score in zip(task.regions, outputs, strict=True):
            painted = np.zeros(score.shape, np.uint8) if painted is None else painted
            painted[score > 0.5] = region.paint
        assert painted is not None
        return painted
    best = next(outputs).copy()
    painted = np.zeros(best.shape, np.uint8)
    for region, score in zip(task.regions, outputs, strict=True):
        wins = score > best
        painted[wins] = region.paint
        best[wins] = score[wins]
    return painted


def _on_grid(scores: NDArray[np.float32], facts: CaseFacts | None) -> Iterator[NDArray[np.float32]]:
    # One output at a time: all of them at native resolution can exceed the memory.
    for score in scores:
        yield score if facts is None else to_native(score[None], facts)[0]
