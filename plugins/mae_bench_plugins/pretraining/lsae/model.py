"""The objective `lsae`: swap the lungs' texture between two radiographs so that nobody can tell. PAPER 5b."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mae_bench.engine.loop import decay_groups
from mae_bench.errors import UsageError
from mae_bench.interfaces import Wants
from mae_bench_plugins.pretraining.lsae.autoencoder import SwappingAutoencoder
from mae_bench_plugins.pretraining.lsae.discriminators import ImageDiscriminator, PatchDiscriminator
from mae_bench_plugins.pretraining.lsae.encoder import BLOCKS, STRIDE
from mae_bench_plugins.pretraining.lsae.losses import PatchNCE, gradient_penalty, seems_fake, seems_real
from mae_bench_plugins.pretraining.lsae.patches import cut_patches, draw_places, inside

D, G = "discriminators", "generators"
QUERIES, REFERENCES, POINTS = 8, 4 * 8, 8  # patches in question, patches to compare with, places of PatchNCE
SCALES = (0, 1, 3)  # structure blocks whose maps PatchNCE reads: 128^2, 64^2 and 16^2 of a 256^2 image
BETA = 0.99  # Adam's second; the first is 0
AVERAGE = 0.5 ** (32 / 10_000)  # decay of the averaged autoencoder per step


class LungSwapping(nn.Module):
    """Objective `lsae`, in two turns: the discriminators learn, then encoder and generator.

    The first half of a batch gives structures and is reconstructed, the second half gives textures for the hybrids. A
    batch of an odd number is used whole: every image gets the texture of the one before it.

    Patches of a hybrid are taken from inside the lungs of the image that gave the structure; PatchNCE holds the rest
    of it in place. All images are divided by `bound` on the way in.

    Args:
        encoder: any 2-D encoder; `texture` is the published one.
        width, texture_dim, structure_channels: sizes of what is trained beside the encoder.
        patch_size: pixels to which patches are resized.
        bound: image value that becomes 1.
        r1_every, r1_image, r1_patch: steps between gradient penalties, and their gammas.
        weights: of the generators' losses: recon, image_gan, patch_gan, nce, feature.
        temperature: of PatchNCE.
    """

    steps: Tensor
    wants = Wants(views=1, masks=True, turns=(D, G))

    def __init__(
        self,
        encoder: Any,
        *,
        width: int,
        texture_dim: int,
        structure_channels: int,
        patch_size: int,
        bound: float,
        r1_every: int,
        r1_image: float,
        r1_patch: float,
        temperature: float,
        weights: dict[str, float],
    ) -> None:
        super().__init__()
        if len(encoder.patch) != 2:
            raise UsageError(f"lsae is for 2-D images: the encoder takes patches of {tuple(encoder.patch)}")
        self.autoencoder = SwappingAutoencoder(encoder, width, texture_dim, structure_channels, bound)
        self.nce = PatchNCE([width * BLOCKS[scale] for scale in SCALES], temperature)
        side = min(places * pixels for places, pixels in zip(encoder.grid, encoder.patch, strict=True))
        self.image_discriminator = ImageDiscriminator(encoder.channels, side, width)
        self.patch_discriminator = PatchDiscriminator(encoder.channels, width)
        self.average = copy.deepcopy(self.autoencoder).requires_grad_(False)
        self.patch_size, self.bound, self.weights = patch_size, bound, weights
        self.r1_every, self.r1_image, self.r1_patch = r1_every, r1_image, r1_patch
        # The number decides what a step computes, so the host keeps it, and a buffer carries it through checkpoints.
        self.done = 0
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(_recall_steps)  # type: ignore[no-untyped-call]

    @property
    def encoder(self) -> nn.Module:
        """What is trained for downstream tasks: not the average, as published."""
        found: nn.Module = self.autoencoder.encoder
        return found

    def forward(self, images: Tensor, *, masks: Tensor | None, turn: str) -> dict[str, Tensor]:
        """The losses of one turn.

        Args:
            images: (B, C, H, W), B at least 2, H and W multiples of 16 from 32.
            masks: (B, H, W), lungs other than 0; an empty one stands for the central half of its image.
            turn: `discriminators` or `generators`.

        Returns:
            `loss`, and its unweighted parts.
        """
        _check(images)
        lungs = inside(masks, images)
        images = images / self.bound
        return self.discriminate(images, lungs) if turn == D else self.generate(images, lungs)

    def discriminate(self, images: Tensor, lungs: Tensor) -> dict[str, Tensor]:
        """Logistic losses of both discriminators; every `r1_every` steps with their gradient penalties (lazily)."""
        count = _pairs(len(images))
        with torch.no_grad():
            codes = self.autoencoder.encode(images, count)
            fakes = self._decode(codes.structure, codes.texture)
        hybrids, others, theirs = fakes[count:], _second(images), _second(lungs)
        cut, judge = self._cut, self.patch_discriminator
        real, reference = cut(others, theirs, QUERIES), judge.describe(cut(others, theirs, REFERENCES))
        losses = {
            "image": seems_fake(self.image_discriminator(fakes)) + seems_real(self.image_discriminator(images)),
            "patch": seems_fake(judge(judge.describe(cut(hybrids, lungs[:count], QUERIES)), reference))
            + seems_real(judge(judge.describe(real), reference)),
        }
        loss = losses["image"] + losses["patch"]
        if self.done % self.r1_every == 0:
            losses["r1_image"] = gradient_penalty(self.image_discriminator, images)
            losses["r1_patch"] = self._patch_penalty(real, reference)
            penalty = self.r1_image * losses["r1_image"] + self.r1_patch * losses["r1_patch"]
            loss = loss + penalty / 2 * self.r1_every
        return {"loss": loss, **losses}

    def generate(self, images: Tensor, lungs: Tensor) -> dict[str, Tensor]:
        """Losses of encoder, generator and projectors; nothing is accumulated in the discriminators."""
        count = _pairs(len(images))
        first, others, theirs, ours = images[:count], _second(images), _second(lungs), lungs[:count]
        codes = self.autoencoder.encode(images, count)
        fakes = self._decode(codes.structure, codes.texture)
        recon, hybrids = fakes[:count], fakes[count:]
        again = self.autoencoder.encode(hybrids, count)
        judge = self.patch_discriminator
        with _frozen(self.image_discriminator, judge):
            reference = judge.describe(self._cut(others, theirs, REFERENCES))
            asked = judge.describe(self._cut(hybrids, ours, QUERIES))
            losses = {
                "recon": F.l1_loss(recon, first),
                "image_gan": seems_real(self.image_discriminator(fakes)),
                "patch_gan": seems_real(judge(asked, reference)),
                "nce": self.nce(
                    [again.maps[scale] for scale in SCALES],
                    [codes.maps[scale] for scale in SCALES],
                    draw_places(~ours, POINTS),
                    images.shape[3],
                ),
                "feature": 0.5 * F.mse_loss(again.structure.float(), codes.structure.detach().float())
                + 0.5 * F.mse_loss(again.texture.float(), _second(codes.texture).detach().float()),
            }
        loss = torch.stack([self.weights[name] * part for name, part in losses.items()]).sum()
        return {"loss": loss, **losses}

    def _decode(self, structure: Tensor, texture: Tensor) -> Tensor:
        """Reconstructions, then hybrids: structures (N, ...) with the textures of their own images and of others."""
        textures = torch.cat([texture[: len(structure)], _second(texture)])
        images: Tensor = self.autoencoder(structure.repeat(2, 1, 1, 1), textures)
        return images

    def _cut(self, images: Tensor, region: Tensor, count: int) -> Tensor:
        return cut_patches(images, draw_places(region, count), self.patch_size)

    def _patch_penalty(self, real: Tensor, reference: Tensor) -> Tensor:
        """R1 of the patch discriminator at real patches (B, N, C, P, P), mean over patches; the reference is given."""
        fixed, judge = reference.detach().float(), self.patch_discriminator

        def logits(patches: Tensor) -> Tensor:
            told: Tensor = judge(judge.describe(patches.reshape(real.shape)), fixed)
            return told

        return gradient_penalty(logits, real.flatten(0, 1))

    def groups(self, turn: str, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups. The penalty makes one step in `r1_every` a double one: the discriminators' are shorter."""
        if turn == D:
            ratio = self.r1_every / (self.r1_every + 1)
            parts = nn.ModuleList([self.image_discriminator, self.patch_discriminator])
        else:
            ratio = 1.0
            parts = nn.ModuleList([self.autoencoder, self.nce])
        return [
            group | {"scale": ratio, "betas": (0.0, BETA**ratio)} for group in decay_groups(parts, weight_decay, {})
        ]

    @torch.no_grad()
    def after_step(self, done: float) -> None:
        """Count the step, and let the averaged autoencoder follow; faster at first, so that a short run has one."""
        self.done += 1
        self.steps.fill_(self.done)
        decay = min(AVERAGE, (1 + self.done) / (10 + self.done))
        mean, now = (tuple[torch.Tensor, ...](each.parameters()) for each in (self.average, self.autoencoder))
        torch._foreach_lerp_(mean, now, 1 - decay)
        for held, value in zip(self.average.buffers(), self.autoencoder.buffers(), strict=True):
            held.copy_(value)

    @torch.no_grad()
    def preview(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input, nothing (all NaN: an image reaches the generator only as its codes), and the averaged reconstruction.

        The reconstruction gain is then over the whole image.
        """
        codes = self.average.encode(batch / self.bound, len(batch))
        rebuilt = self.average(codes.structure, codes.texture) * self.bound
        return batch, torch.full_like(batch, torch.nan), rebuilt


def _pairs(batch: int) -> int:
    """How many images give structures."""
    return batch if batch % 2 else batch // 2


def _second(values: Tensor) -> Tensor:
    """Of values (B, ...) those of the images that give textures: the second half, or all rolled by one if B is odd."""
    return values.roll(1, 0) if len(values) % 2 else values[len(values) // 2 :]


def _check(images: Tensor) -> None:
    if len(images) < 2:
        raise UsageError("lsae swaps between images: --set pretrain.batch=2 or more (per process and part)")
    if any(size % STRIDE or size < 2 * STRIDE for size in images.shape[2:]):
        size = tuple(images.shape[2:])
        raise UsageError(
            f"lsae takes images of multiples of 16 pixels from 32, not {size}: change --set recipe.roi=..."
        )


def _recall_steps(module: nn.Module, keys: object) -> None:
    assert isinstance(module, LungSwapping)
    module.done = int(module.steps)


@contextlib.contextmanager
def _frozen(*modules: nn.Module) -> Iterator[None]:
    """Within the block, gradients pass through the modules but not into their parameters."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
