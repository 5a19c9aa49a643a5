"""Self-supervised pre-training of an encoder on the training cases, without their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def crops(self, rank: int = 0, world: int = 1) -> Crops:
        """Batches of the training images."""
        stage, protocol = self.spec.recipe.pretrain, self.spec.protocol
        return Crops(
            self.prepared,
            self.cases,
            self.spec.recipe.roi,
            stage.batch,
            stage.crops,
            seed=self.spec.pretrain_seed,
            # 1:1 around labelled voxels is what the paper's code does (PAPER D2); else labels are never opened.
            labelled_share=0.5 if protocol.pretrain_crops == "labels" else 0.0,
            # A mask of organs is no label; what is to be segmented is.
            with_labels=self.objective.wants.masks and self.task.kind != "segmentation",
            views=self.objective.wants.views,
            augmentation=Augmentation(self.task.flip_axes, FLIP, stage.intensity, stage.area, stage.rotate),
            rank=rank,
            world=world,
        )


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


def run_local(job: Job) -> dict[str, Any]:
    """Pre-train in this process (or in all of an accelerate launch); leaves weights, losses and a picture.

    Returns:
        Facts for the stage file: seconds, samples, events, last loss.
    """
    stage, accelerator = job.spec.recipe.pretrain, job.setting.accelerator
    steps = stage.total_steps(len(job.cases))
    objective: Any = job.objective
    inputs = Inputs(job.spec.protocol, len(job.spec.recipe.roi))
    watch = health.Watch(objective, inputs, job.crops(), job.setting)
    plan = loop.Plan(
        name="pretrain",
        module=_Unlabelled(objective, inputs),
        turns=_turns(objective, stage.weight_decay),
        batch=job.crops(accelerator.process_index, accelerator.num_processes),
        stage=stage,
        steps=steps,
        seed=job.spec.pretrain_seed,
        folder=job.folder,
        after_step=objective.after_step,
        check=watch,
        checks=CHECKS,
        state=watch.state,
    )
    history = loop.train(plan, job.setting)
    if accelerator.is_main_process:
        save_weights(objective.encoder, job.folder / WEIGHTS)
        write_losses(history.losses, job.folder / "losses.csv")
        preview(job, inputs)
    return {
        "seconds": history.seconds,
        "samples": steps * stage.batch * stage.crops,
        "events": [*history.events, *watch.events()],
        "loss": history.losses[-1],
    }


def _turns(objective: Any, weight_decay: float) -> dict[str, list[dict[str, Any]]]:
    turns: tuple[str, ...] = objective.wants.turns
    if len(turns) == 1:
        return {turns[0]: loop.decay_groups(objective, weight_decay, {})}
    return {turn: objective.groups(turn, weight_decay) for turn in turns}


def write_losses(losses: Sequence[float], path: Path) -> None:
    """Write one loss per step as CSV."""
    rows = "".join(f"{step},{loss!r}\n" for step, loss in enumerate(losses, 1))
    write_bytes(path, f"step,loss\n{rows}".encode())


@torch.no_grad()
def preview(job: Job, inputs: Inputs) -> None:
    """Draw input, masked input and reconstruction of a few training crops, if the objective has a picture of itself."""
    objective: Any = job.objective
    objective.eval()
    images = first_view(inputs(job.crops()(0)), objective)[:PREVIEWS].to(job.setting.accelerator.device)
    with torch.random.fork_rng(devices=[]), job.setting.accelerator.autocast():
        torch.manual_seed(job.spec.pretrain_seed)
        shown = objective.preview(images)
    if shown is not None:
        images, masked, completed = (part.float().cpu().numpy() for part in shown)
        pictures.reconstruction(images, masked, completed, job.folder / "reconstruction.png")
