"""Self-supervised pre-training of an encoder on the training cases, without their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from mae_bench.data.augment import Augmentation
from mae_bench.data.crops import Batch, Crops
from mae_bench.data.prepared import Prepared
from mae_bench.engine import health, loop, pictures
from mae_bench.engine.health import first_view
from mae_bench.engine.inputs import Inputs
from mae_bench.engine.weights import save_weights
from mae_bench.spec import RunSpec
from mae_bench.store import write_bytes
from mae_bench.task import Task

WEIGHTS = "encoder.safetensors"
PREVIEWS = 4  # crops in the picture
CHECKS = 4  # looks at the representation, evenly spaced
FLIP = 0.5  # probability of a flip per axis the task allows


@dataclass
class Job:
    """A pre-training to be run: what `mae_bench_pretrain` hooks are offered."""

    spec: RunSpec
    task: Task
    objective: Any
    prepared: Prepared
    cases: Sequence[str]
    folder: Path
    setting: loop.Setting
    stage: ClassVar[Literal["pretrain"]] = "pretrain"

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.spec.recipe.pretrain.total_steps(len(self.cases))

    def plan(
        self, cases: Sequence[str] | None = None, folder: Path | None = None, seed: int | None = None
    ) -> loop.Plan:
        """The stage on all cases, or on those of one site with its own folder and seed; the module is the same."""
        stage, accelerator = self.spec.recipe.pretrain, self.setting.accelerator
        seed = self.spec.pretrain_seed if seed is None else seed
        return loop.Plan(
            name="pretrain",
            module=self.module,
            turns=_turns(self.objective, stage.weight_decay),
            batch=self.crops(cases, seed, accelerator.process_index, accelerator.num_processes),
            stage=stage,
            steps=self.steps,
            seed=seed,
            folder=folder or self.folder,
            after_step=self.objective.after_step,
            check=self.watch,
            checks=CHECKS,
            state=self.watch.state,
        )

    def finish(self, history: loop.History) -> dict[str, Any]:
        """Leave weights, losses and a picture of the trained objective.

        Returns:
            Facts for the stage file: seconds, samples, events, last loss.
        """
        stage = self.spec.recipe.pretrain
        if self.setting.accelerator.is_main_process:
            save_weights(self.objective.encoder, self.folder / WEIGHTS)
            write_losses(history.losses, self.folder / "losses.csv")
            self._draw_preview()
        return {
            "seconds": history.seconds,
            "samples": self.steps * stage.batch * stage.crops,
            "events": [*history.events, *self.watch.events()],
            "loss": history.losses[-1],
        }

    @cached_property
    def module(self) -> nn.Module:
        """The objective, fed with batches as they leave the crops."""
        return _Unlabelled(self.objective, Inputs(self.spec.protocol, len(self.spec.recipe.roi)))

    @cached_property
    def watch(self) -> health.Watch:
        """What looks at the representation during the training."""
        return health.Watch(self.objective, self.module.inputs, self.crops(), self.setting)  # type: ignore[arg-type]

    def crops(
        self, cases: Sequence[str] | None = None, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> Crops:
        """Batches of the training images."""
        stage, protocol = self.spec.recipe.pretrain, self.spec.protocol
        return Crops(
            self.prepared,
            self.cases if cases is None else cases,
            self.spec.recipe.roi,
            stage.batch,
            stage.crops,
            seed=self.spec.pretrain_seed if seed is None else seed,
            # 1:1 around labelled voxels is what the paper's code does (PAPER D2); else labels are never opened.
            labelled_share=0.5 if protocol.pretrain_crops == "labels" else 0.0,
            # A mask of organs is no label; what is to be segmented is.
            with_labels=self.objective.wants.masks and self.task.kind != "segmentation",
            views=self.objective.wants.views,
            augmentation=Augmentation(self.task.flip_axes, FLIP, stage.intensity, stage.area, stage.rotate),
            rank=rank,
            world=world,
        )

    @torch.no_grad()
    def _draw_preview(self) -> None:
        """Draw input, masked input and reconstruction of a few training crops, if the objective can."""
        objective: Any = self.objective
        objective.eval()
        inputs: Any = self.module.inputs
        images = first_view(inputs(self.crops()(0)), objective)[:PREVIEWS].to(self.setting.accelerator.device)
        with torch.random.fork_rng(devices=[]), self.setting.accelerator.autocast():
            torch.manual_seed(self.spec.pretrain_seed)
            shown = objective.preview(images)
        if shown is not None:
            images, masked, completed = (part.float().cpu().numpy() for part in shown)
            pictures.reconstruction(images, masked, completed, self.folder / "reconstruction.png")


class _Unlabelled(nn.Module):
    """Hands an objective the images of a batch, and the masks if it wants them."""

    def __init__(self, objective: Any, inputs: Inputs) -> None:
        super().__init__()
        self.objective, self.inputs = objective, inputs

    def forward(self, batch: Batch, turn: str | None = None) -> Any:
        more: dict[str, Any] = {} if turn is None else {"turn": turn}
        if self.objective.wants.masks:
            more["masks"] = batch.labels
        return self.objective(self.inputs(batch), **more)


def _turns(objective: Any, weight_decay: float) -> dict[str, list[dict[str, Any]]]:
    turns: tuple[str, ...] = objective.wants.turns
    if len(turns) == 1:
        return {turns[0]: loop.decay_groups(objective, weight_decay, {})}
    return {turn: objective.groups(turn, weight_decay) for turn in turns}


def write_losses(losses: Sequence[float], path: Path) -> None:
    """Write one loss per step as CSV."""
    rows = "".join(f"{step},{loss!r}\n" for step, loss in enumerate(losses, 1))
    write_bytes(path, f"step,loss\n{rows}".encode())
