"""Does an encoder learn anything? Looks at its features while it is pre-trained, and warns.

A contrastive method can collapse to one answer for every image while its loss looks fine; a reconstruction of mostly
black images can have a low loss and say no more than each patch's mean (PAPER 6).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mae_bench.data.crops import Batch
from mae_bench.engine.inputs import Inputs
from mae_bench.engine.loop import Setting

SAMPLES = 32  # crops that are looked at, the same ones every time
COLLAPSED_STD = 1e-3  # of features relative to their size
COLLAPSED_RANK = 1.5


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values of centred (N, dim) features (Roy and Vetterli 2007).

    Between 1, all features along one line, and min(N - 1, dim). 0 when all are equal.
    """
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    if float(values.sum()) <= 1e-12 * float(features.norm() + 1e-30):
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-(shares * torch.log(shares.clamp(min=1e-30))).sum()))


def relative_std(features: Tensor) -> float:
    """Deviation between samples of (N, dim) features, over their root mean square."""
    size = float(features.square().mean().sqrt())
    return float(features.std(dim=0).square().mean().sqrt()) / size if size else 0.0


def reconstruction_gain(image: Tensor, masked: Tensor, completed: Tensor, patch: tuple[int, ...]) -> float:
    """Share of the variance within masked patches that a completion explains: 0 is what each patch's mean would do.

    All (B, C, *S), hidden voxels of `masked` NaN.
    """
    from mae_bench.tokens import patchify

    cut, hidden, guess = (patchify(part, patch) for part in (image, masked.isnan().to(image.dtype), completed))
    chosen = hidden[..., 0] > 0
    truth, guess = cut[chosen], guess[chosen]
    variance = float((truth - truth.mean(dim=-1, keepdim=True)).square().mean())
    return 1 - float((truth - guess).square().mean()) / variance if variance else 0.0


class Watch:
    """Called by the loop at its checks; keeps the figures in `state`, which is checkpointed."""

    def __init__(self, objective: Any, inputs: Inputs, batches: Callable[[int], Batch], setting: Setting) -> None:
        self.objective, self.inputs, self.batches, self.setting = objective, inputs, batches, setting
        self.state: dict[str, Any] = {"looks": []}

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """Look at the first crops of the training."""
        accelerator, images = self.setting.accelerator, self._images()
        with torch.random.fork_rng(devices=[]), accelerator.autocast():
            torch.manual_seed(0)
            features = torch.cat([self.objective.encoder(part).pooled.float() for part in torch.split(images, 4)])
            shown = self.objective.preview(images[:4])
        look: dict[str, Any] = {
            "event": "representation",
            "stage": "pretrain",
            "step": step,
            "feature_std": round(relative_std(features), 6),
            "effective_rank": round(effective_rank(features), 3),
        }
        if shown is not None:
            image, masked, completed = (part.float() for part in shown)
            gain = reconstruction_gain(image, masked, completed, self.objective.encoder.patch)
            look["reconstruction_gain"] = round(gain, 4)
        self.state["looks"].append(look)
        # The first look is early; what is still wrong at the second will not mend by itself.
        if len(self.state["looks"]) == 2 and (warning := verdict(look)):
            self.setting.reporter.note(f"pretrain: step {step}: {warning}")

    def events(self) -> list[dict[str, Any]]:
        """The last look, and what it warns of."""
        if not self.state["looks"]:
            return []
        last = self.state["looks"][-1]
        warning = verdict(last)
        return [last] + ([{"event": "warning", "stage": "pretrain", "what": warning}] if warning else [])

    def _images(self) -> Tensor:
        found: list[Tensor] = []
        step = 0
        while sum(map(len, found)) < SAMPLES:
            found.append(first_view(self.inputs(self.batches(step)), self.objective))
            step += 1
        return torch.cat(found)[:SAMPLES].to(self.setting.accelerator.device)


def first_view(images: Tensor, objective: Any) -> Tensor:
    """(B, C, *roi) of a batch that may have several views."""
    return images if objective.wants.views == 1 else images[:, 0]


def verdict(look: dict[str, Any]) -> str:
    """What is wrong with the representation, or nothing."""
    if look["feature_std"] < COLLAPSED_STD or look["effective_rank"] < COLLAPSED_RANK:
        return (
            f"the representation has collapsed (feature deviation {look['feature_std']:.1e}, effective rank "
            f"{look['effective_rank']:.1f}): all images look alike to it"
        )
    if look.get("reconstruction_gain", 1.0) <= 0:
        return (
            f"the reconstruction explains no more than each patch's mean (gain {look['reconstruction_gain']:.2f}): "
            "train longer, or change --norm-pix"
        )
    return ""
