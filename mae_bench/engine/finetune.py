"""Supervised training of encoder and head, with the checkpoint chosen on the selection cases."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mae_bench.data.augment import Augmentation
from mae_bench.data.crops import Batch, Crops
from mae_bench.data.prepared import Prepared
from mae_bench.engine import loop
from mae_bench.engine.inputs import Inputs
from mae_bench.engine.losses import SupervisedLoss
from mae_bench.engine.predict import label_map, probabilities
from mae_bench.engine.randaugment import RandAugmented
from mae_bench.metrics.classification import mean_auc
from mae_bench.metrics.segmentation import dice
from mae_bench.metrics.survival import concordance
from mae_bench.spec import RunSpec
from mae_bench.task import Task


def finetune(
    model: nn.Module,
    spec: RunSpec,
    task: Task,
    prepared: Prepared,
    labelled: Sequence[str],
    selection: Sequence[str],
    folder: Path,
    setting: loop.Setting,
    *,
    extra_steps: int = 0,
) -> dict[str, Any]:
    """Train `model` on the labelled cases; it is left with the weights that scored best on the selection cases.

    Returns:
        Facts for the stage file: seconds, events, losses, and the selection score after each check.
    """
    stage, accelerator = spec.recipe.finetune, setting.accelerator
    protocol = spec.protocol
    crops: Callable[[int], Batch] = Crops(
        prepared,
        labelled,
        spec.recipe.roi,
        stage.batch,
        stage.crops,
        seed=spec.seed,
        labelled_share=stage.foreground if task.kind == "segmentation" else 0.0,
        with_labels=task.kind == "segmentation",
        centred=task.kind != "segmentation",
        augmentation=Augmentation(task.flip_axes, stage.flip, stage.intensity, stage.area, stage.rotate),
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    if stage.randaugment is not None:
        crops = RandAugmented(crops, stage.randaugment, protocol.preprocessing.intensity, spec.seed)
    scorer = _Selection(model, spec, task, prepared, selection, setting)
    plan = loop.Plan(
        name="finetune",
        module=SupervisedLoss(model, task, stage.loss, Inputs(protocol, len(spec.recipe.roi))),
        turns={"": loop.decay_groups(model, stage.weight_decay, layer_scales(model, stage.layer_decay))},
        batch=crops,
        stage=stage,
        steps=stage.total_steps(len(labelled)) + extra_steps,
        seed=spec.seed,
        folder=folder,
        check=scorer,
        checks=stage.checks,
        state=scorer.state,
        logged_from=spec.recipe.pretrain.total_steps(len(prepared.facts)),
    )
    history = loop.train(plan, setting)
    model.load_state_dict(scorer.state["weights"])
    return {
        "seconds": history.seconds,
        "events": history.events,
        "losses": history.losses,
        "selection": scorer.state["scores"],
    }


def layer_scales(model: Any, decay: float) -> dict[nn.Parameter, float]:
    """Rate scale of each encoder parameter: decay^(layers above it); the rest of the model has scale 1 (PAPER 3b)."""
    groups = model.encoder.layer_groups()
    return {parameter: decay ** (len(groups) - 1 - depth) for depth, group in enumerate(groups) for parameter in group}


class _Selection:
    """Scores the model on the selection cases and remembers the best weights, in `state`, which is checkpointed."""

    def __init__(
        self,
        model: nn.Module,
        spec: RunSpec,
        task: Task,
        prepared: Prepared,
        cases: Sequence[str],
        setting: loop.Setting,
    ) -> None:
        self.model, self.spec, self.task, self.prepared = model, spec, task, prepared
        self.cases, self.setting = cases, setting
        self.state: dict[str, Any] = {"scores": []}

    def __call__(self, step: int) -> None:
        """Compare the model after `step`; ties keep the earlier weights."""
        score = self._score()
        best = max((value for _, value in self.state["scores"]), default=-np.inf)
        self.state["scores"] = [*self.state["scores"], (step, score)]
        if score > best or "weights" not in self.state:
            self.state["weights"] = {
                name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()
            }
        self.setting.reporter.note(f"finetune: step {step}, score on the selection cases {score:.4f}")

    def _score(self) -> float:
        """Mean Dice on the prepared grid, or mean AUC. Every process computes the same."""
        task = self.task
        scores = [
            probabilities(self.model, self.prepared.case(case), task, self.spec.recipe, self.setting.accelerator)
            for case in self.cases
        ]
        if task.kind != "segmentation":
            truth = np.array([self.prepared.facts[case].findings for case in self.cases], float)
            if task.kind == "survival":
                return float(
                    np.nan_to_num(concordance(truth[:, 0], truth[:, 1], np.array(scores, float)[:, 0]), nan=0.5)
                )
            value = mean_auc(truth, np.array(scores, float))
            # One class only among the selection cases: the likelihood still tells models apart.
            return value if np.isfinite(value) else -float(np.abs(truth - np.array(scores)).mean())
        values = []
        for case, score in zip(self.cases, scores, strict=True):
            painted, truth = label_map(score, task), self.prepared.case(case).label()
            values += [
                dice(np.isin(painted, region.labels), np.isin(truth, region.labels), self.spec.protocol.empty)
                for region in task.regions
                if region.headline
            ]
        return float(np.nanmean(values))
