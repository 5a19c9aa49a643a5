"""Self-supervised pre-training of an encoder on the training cases, without their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from mae_bench.data.crops import Augmentation, Batch, Crops
from mae_bench.data.prepared import Prepared
from mae_bench.engine import loop, pictures
from mae_bench.spec import RunSpec
from mae_bench.store import write_bytes
from mae_bench.task import Task

WEIGHTS = "encoder.safetensors"
PREVIEWS = 4  # crops in the picture


@dataclass
class Job:
    """A pre-training to be run: what `mae_bench_pretrain` hooks are offered."""

    spec: RunSpec
    task: Task
    objective: nn.Module
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
            zscore=protocol.crop_zscore,
            augmentation=Augmentation(axes=self.task.flip_axes, flip=0.5),
            rank=rank,
            world=world,
        )


class _ImagesOnly(nn.Module):
    """Hands an objective the images of a batch."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch) -> Any:
        return self.objective(batch.images)


def run_local(job: Job) -> dict[str, Any]:
    """Pre-train in this process (or in all of an accelerate launch); leaves weights, losses and a picture.

    Returns:
        Facts for the stage file: seconds, samples, events, last loss.
    """
    stage, accelerator = job.spec.recipe.pretrain, job.setting.accelerator
    steps = stage.total_steps(len(job.cases))
    objective: Any = job.objective
    plan = loop.Plan(
        name="pretrain",
        module=_ImagesOnly(objective),
        groups=loop.decay_groups(objective, stage.weight_decay, {}),
        batch=job.crops(accelerator.process_index, accelerator.num_processes),
        stage=stage,
        steps=steps,
        seed=job.spec.pretrain_seed,
        folder=job.folder,
        after_step=objective.after_step,
    )
    history = loop.train(plan, job.setting)
    if accelerator.is_main_process:
        save_weights(objective.encoder, job.folder / WEIGHTS)
        write_losses(history.losses, job.folder / "losses.csv")
        preview(job)
    return {
        "seconds": history.seconds,
        "samples": steps * stage.batch * stage.crops,
        "events": history.events,
        "loss": history.losses[-1],
    }


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the weights as safetensors, atomically."""
    write_bytes(path, to_safetensors({name: value.contiguous().cpu() for name, value in module.state_dict().items()}))


def write_losses(losses: Sequence[float], path: Path) -> None:
    """Write one loss per step as CSV."""
    rows = "".join(f"{step},{loss!r}\n" for step, loss in enumerate(losses, 1))
    write_bytes(path, f"step,loss\n{rows}".encode())


@torch.no_grad()
def preview(job: Job) -> None:
    """Draw input, masked input and reconstruction of a few training crops, if the objective has a picture of itself."""
    objective: Any = job.objective
    objective.eval()
    images = torch.from_numpy(job.crops()(0).images[:PREVIEWS]).to(job.setting.accelerator.device)
    with torch.random.fork_rng(devices=[]), job.setting.accelerator.autocast():
        torch.manual_seed(job.spec.pretrain_seed)
        shown = objective.preview(images)
    if shown is not None:
        images, masked, completed = (part.float().cpu().numpy() for part in shown)
        pictures.reconstruction(images, masked, completed, job.folder / "reconstruction.png")
