"""Supervised training of encoder and head, with the checkpoint chosen on the selection cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mae_bench.data.augment import Augmentation
from mae_bench.data.crops import Batch, Crops
from mae_bench.data.prepared import Prepared
from mae_bench.engine import loop
from mae_bench.engine.inputs import Inputs
from mae_bench.engine.losses import SupervisedLoss
from mae_bench.engine.predict import label_map, predictions
from mae_bench.engine.randaugment import RandAugmented
from mae_bench.metrics.classification import mean_auc
from mae_bench.metrics.segmentation import dice
from mae_bench.metrics.survival import concordance
from mae_bench.spec import RunSpec
from mae_bench.task import Task


@dataclass
class Job:
    """A fine-tuning to be run: what `mae_bench_finetune` hooks are offered.

    cases: those whose labels may be used. selection: those on which the checkpoint is chosen. extra_steps: on top of
    the recipe's, for equal budgets. train: all training cases, labelled or not, which are what sites share out.
    """

    spec: RunSpec
    task: Task
    model: nn.Module
    prepared: Prepared
    cases: Sequence[str]
    selection: Sequence[str]
    folder: Path
    setting: loop.Setting
    extra_steps: int = 0
    train: Sequence[str] = ()
    stage: ClassVar[Literal["finetune"]] = "finetune"

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.spec.recipe.finetune.total_steps(len(self.cases)) + self.extra_steps

    def plan(
        self, cases: Sequence[str] | None = None, folder: Path | None = None, seed: int | None = None
    ) -> loop.Plan:
        """The stage on all cases, or on those of one site with its own folder and seed; the module is the same."""
        stage = self.spec.recipe.finetune
        seed = self.spec.seed if seed is None else seed
        return loop.Plan(
            name="finetune",
            module=self.module,
            turns={"": loop.decay_groups(self.model, stage.weight_decay, layer_scales(self.model, stage.layer_decay))},
            batch=self._batches(self.cases if cases is None else cases, seed),
            stage=stage,
            steps=self.steps,
            seed=seed,
            folder=folder or self.folder,
            check=self.scorer,
            checks=stage.checks,
            state=self.scorer.state,
            logged_from=self.spec.recipe.pretrain.total_steps(len(self.prepared.facts)),
        )

    def finish(self, history: loop.History) -> dict[str, Any]:
        """Leave the model with the weights that scored best on the selection cases.

        Returns:
            Facts for the stage file: seconds, events, losses, and the selection score after each check.
        """
        self.model.load_state_dict(self.scorer.state["weights"])
        return {
            "seconds": history.seconds,
            "events": history.events,
            "losses": history.losses,
            "selection": self.scorer.state["scores"],
        }

    @cached_property
    def module(self) -> nn.Module:
        """The model with its loss."""
        inputs = Inputs(self.spec.protocol, len(self.spec.recipe.roi))
        return SupervisedLoss(self.model, self.task, self.spec.recipe.finetune.loss, inputs)

    @cached_property
    def scorer(self) -> "_Selection":
        """What compares the model on the selection cases, and remembers the best weights."""
        return _Selection(self.model, self.spec, self.task, self.prepared, self.selection, self.setting)

    def _batches(self, cases: Sequence[str], seed: int) -> Callable[[int], Batch]:
        stage, accelerator = self.spec.recipe.finetune, self.setting.accelerator
        crops = Crops(
            self.prepared,
            cases,
            self.spec.recipe.roi,
            stage.batch,
            stage.crops,
            seed=seed,
            labelled_share=stage.foreground if self.task.kind == "segmentation" else 0.0,
            with_labels=self.task.kind == "segmentation",
            centred=self.task.kind != "segmentation",
            augmentation=Augmentation(self.task.flip_axes, stage.flip, stage.intensity, stage.area, stage.rotate),
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        if stage.randaugment is None:
            return crops
        return RandAugmented(
            crops,
            stage.randaugment,
            self.spec.protocol.preprocessing.intensity,
            seed,
            (len(self.task.channels), *self.spec.recipe.roi),
            accelerator.process_index,
            accelerator.num_processes,
        )


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
        score = self.score()
        best = max((value for _, value in self.state["scores"]), default=-np.inf)
        self.state["scores"] = [*self.state["scores"], (step, score)]
        if score > best or "weights" not in self.state:
            self.state["weights"] = {
                name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()
            }
        self.setting.reporter.note(f"finetune: step {step}, score on the selection cases {score:.4f}")

    def score(self) -> float:
        """Mean Dice on the prepared grid, or mean AUC. Every process computes the same."""
        task = self.task
        predicted = predictions(self.model, self.prepared, self.cases, task, self.spec.recipe, self.setting.accelerator)
        if task.kind == "segmentation":
            return float(np.nanmean([value for case, score in predicted for value in self._dice(case, score)]))
        truth = np.array([self.prepared.facts[case].findings for case in self.cases], float)
        scores = np.array([score for _, score in predicted], float)
        if task.kind == "survival":
            return float(np.nan_to_num(concordance(truth[:, 0], truth[:, 1], scores[:, 0]), nan=0.5))
        value = mean_auc(truth, scores)
        # One class only among the selection cases: the likelihood still tells models apart.
        return value if np.isfinite(value) else -float(np.abs(truth - scores).mean())

    def _dice(self, case: str, score: NDArray[np.float32]) -> list[float]:
        """Dice of each headline region of one case."""
        painted, truth = label_map(score, self.task), self.prepared.case(case).label()
        return [
            dice(np.isin(painted, region.labels), np.isin(truth, region.labels), self.spec.protocol.empty)
            for region in self.task.regions
            if region.headline
        ]
