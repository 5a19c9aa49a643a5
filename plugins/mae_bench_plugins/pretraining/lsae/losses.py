"""The losses of LSAE, in single precision. PAPER 5b."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench_plugins.pretraining.lsae.layers import EqualLinear


def seems_real(logits: Tensor) -> Tensor:
    """Logistic loss of logits that should say real: mean of softplus(-x). Also the generator's, non-saturating."""
    return F.softplus(-logits.float()).mean()


def seems_fake(logits: Tensor) -> Tensor:
    """Logistic loss of logits that should say generated: mean of softplus(x)."""
    return F.softplus(logits.float()).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018, equation 9, without gamma / 2): mean over samples of |gradient of the logit|^2.

    real: (N, C, H, W). Computed in single precision, whatever the autocast.
    """
    with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
        x = real.detach().to(torch.promote_types(real.dtype, torch.float32)).requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
        return gradient.square().flatten(1).sum(dim=1).mean()


class PatchNCE(nn.Module):
    """Contrast of places: one of the hybrid should be known among others by the same place of the original.

    Maps at several scales are read at the given places, projected by a two-layer perceptron per scale, and
    normalised; negatives are the other places of the same image (Park et al. 2020, equation 3). No gradient goes
    through the original.
    """

    def __init__(self, channels: Sequence[int], temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.projectors = nn.ModuleList(
            nn.Sequential(EqualLinear(wide, wide // 2, activate=True), EqualLinear(wide // 2, wide))
            for wide in channels
        )

    def forward(self, hybrid: Sequence[Tensor], original: Sequence[Tensor], places: Tensor, width: int) -> Tensor:
        """Cross-entropy, averaged over scales.

        Args:
            hybrid, original: maps (B, C, h, w), one pair per scale, of images of equal size.
            places: (B, N) indices into the pixels of those images.
            width: of the images in pixels.
        """
        losses = []
        for projector, ours, theirs in zip(self.projectors, hybrid, original, strict=True):
            at = _read(ours, places, width)
            query = F.normalize(projector(at).float(), dim=-1)
            with torch.no_grad():
                key = F.normalize(projector(_read(theirs, places, width)).float(), dim=-1)
            logits = (query.unsqueeze(2) * key.unsqueeze(1)).sum(dim=-1) / self.temperature  # (B, N, N)
            target = torch.arange(places.shape[1], device=places.device).expand(len(places), -1)
            losses.append(F.cross_entropy(logits.flatten(0, 1), target.flatten()))
        return torch.stack(losses).mean()


def _read(maps: Tensor, places: Tensor, width: int) -> Tensor:
    """What a map (B, C, h, w) says at pixels (B, N) of an image `width` pixels wide: (B, N, C)."""
    stride = width // maps.shape[3]
    cells = places // width // stride * maps.shape[3] + places % width // stride
    return maps.flatten(2).gather(2, cells[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)
