"""The objective as the loop sees it: two turns, their gradients, penalties, averages, checkpoints."""

import math
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mae_bench.engine import loop
from mae_bench.engine.device import make_accelerator
from mae_bench.errors import Interrupted, UsageError
from mae_bench.interfaces import Features
from mae_bench.recipe import Recipe, Stage
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.pretraining.lsae import LSAE, LSAEOptions, Texture, TextureOptions
from mae_bench_plugins.pretraining.lsae.losses import seems_fake, seems_real
from mae_bench_plugins.pretraining.lsae.patches import inside

D, G = "discriminators", "generators"
SMALL = {"width": 4, "texture_dim": 24, "structure_channels": 3, "patch_size": 16}
WEIGHTS = {"recon": 1.0, "image_gan": 0.5, "patch_gan": 1.0, "nce": 1.0, "feature": 0.5}


def make(encoder="texture", channels=1, roi=(32, 32), **options):
    torch.manual_seed(0)
    if encoder == "texture":
        encoder = Texture().build(TextureOptions(width=4, dim=24), channels, roi)
    elif encoder == "vit":
        encoder = VisionTransformerEncoder(channels, roi, (8, 8), 24, 2, 3)
    return LSAE().objective(LSAEOptions(**SMALL | options), encoder)


def radiographs(batch=4, channels=1, roi=(32, 32), seed=0):
    """Images in the normalisation of CXR14, and masks of which the second is empty."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, channels, 4, 4, generator=generator)
    images = F.interpolate(coarse, roi, mode="bicubic").clamp(-2.2, 2.2)
    masks = torch.zeros(batch, *roi, dtype=torch.uint8)
    masks[:, 6:20, 8:14] = 1
    masks[1:2] = 0
    return images, masks


def loss_of(model, turn, seed=1, **given):
    images, masks = radiographs(**given)
    torch.manual_seed(seed)
    return model(images, masks=masks, turn=turn)


@pytest.mark.parametrize("encoder", ["texture", "vit"])
@pytest.mark.parametrize(
    ("batch", "channels", "roi"), [(4, 1, (32, 32)), (2, 3, (48, 32)), (3, 1, (32, 80)), (5, 1, (32, 32))]
)
def test_any_size(encoder, batch, channels, roi):
    model = make(encoder, channels, roi)
    for turn, names in ((D, {"image", "patch", "r1_image", "r1_patch"}), (G, set(WEIGHTS))):
        losses = loss_of(model, turn, batch=batch, channels=channels, roi=roi)
        assert set(losses) == {"loss", *names}
        assert all(part.ndim == 0 and torch.isfinite(part) for part in losses.values())


def test_the_weights_are_the_published_ones():
    """PAPER 5b: 1.0, 0.5, 1.0, 1.0 and 0.5; R1 with gamma / 2 x 16, gamma 10 and 1."""
    model = make()
    losses = loss_of(model, G)
    assert losses["loss"].item() == pytest.approx(sum(w * losses[name].item() for name, w in WEIGHTS.items()))
    losses = loss_of(model, D)
    expected = losses["image"] + losses["patch"] + (10 * losses["r1_image"] + losses["r1_patch"]) / 2 * 16
    torch.testing.assert_close(losses["loss"], expected)


@pytest.mark.parametrize("batch", [4, 3])
@torch.no_grad()
def test_pairs(batch):
    """Reconstructions, then hybrids: own structure with the texture of the second half, or of the image before."""
    model = make()
    images, _ = radiographs(batch)
    own = model.autoencoder
    codes = own.encode(images, batch)
    givers = [2, 3] if batch == 4 else [2, 0, 1]
    count = len(givers)
    torch.manual_seed(5)
    structure = codes.structure[:count].repeat(2, 1, 1, 1)
    expected = own(structure, codes.texture[[*range(count), *givers]])
    torch.manual_seed(5)
    found = model._decode(codes.structure[:count], codes.texture)
    torch.testing.assert_close(found, expected)
    few = own.encode(images, count)
    torch.testing.assert_close(few.structure, codes.structure[:count])
    torch.testing.assert_close(few.texture, codes.texture)


def test_discriminators_against_the_steps_spelt_out():
    """Fakes are reconstructions and hybrids, all images are real; hybrids' patches come from inside I1's mask."""
    model = make()
    images, masks = radiographs()
    torch.manual_seed(7)
    losses = model(images, masks=masks, turn=D)
    own, judge = model.autoencoder, model.patch_discriminator
    torch.manual_seed(7)
    with torch.no_grad():
        scaled = images / 2.25
        codes = own.encode(scaled, 2)
        fakes = own(codes.structure.repeat(2, 1, 1, 1), codes.texture)
    lungs = inside(masks, images)
    real, reference, asked = (
        model._cut(*given)
        for given in ((scaled[2:], lungs[2:], 8), (scaled[2:], lungs[2:], 32), (fakes[2:], lungs[:2], 8))
    )
    reference = judge.describe(reference)
    patch = seems_fake(judge(judge.describe(asked), reference)) + seems_real(judge(judge.describe(real), reference))
    torch.testing.assert_close(losses["patch"], patch)
    image = seems_fake(model.image_discriminator(fakes)) + seems_real(model.image_discriminator(scaled))
    torch.testing.assert_close(losses["image"], image)


@pytest.mark.parametrize("encoder", ["texture", "vit"])
@pytest.mark.parametrize("turn", [D, G])
def test_a_turn_teaches_its_own(encoder, turn):
    """Gradients on all parameters of the turn's groups and on no others; a small step along them lowers the loss."""
    model = make(encoder)
    before = loss_of(model, turn)["loss"]
    before.backward()
    groups = model.groups(turn, 0.01)
    own = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in own), name
        assert parameter.requires_grad == (not name.startswith("average")), name
    assert sum(float(p.grad.norm()) > 0 for group in groups for p in group["params"]) > 0.9 * len(own)
    with torch.no_grad():
        for group in groups:
            for parameter in group["params"]:
                parameter -= 1e-5 * parameter.grad
    assert loss_of(model, turn)["loss"].item() < before.item()


def test_every_trained_parameter_has_one_turn():
    model = make("vit")
    ids = [id(p) for turn in (D, G) for group in model.groups(turn, 0.1) for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for name, p in model.named_parameters() if not name.startswith("average")}


def test_optimiser_groups():
    """PAPER 5b: betas (0, 0.99); of the discriminators rate and beta by 16 / 17; vectors do not decay."""
    model = make()
    for group in model.groups(D, 0.3):
        assert (group["scale"], group["betas"]) == (16 / 17, (0.0, 0.99 ** (16 / 17)))
    for group in model.groups(G, 0.3):
        assert (group["scale"], group["betas"]) == (1.0, (0.0, 0.99))
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.3) for p in group["params"])


def test_penalties_are_lazy_and_the_count_survives():
    model = make(r1_every=3)
    seen = []
    for step in range(7):
        seen.append("r1_image" in loss_of(model, D))
        model.after_step(step / 7)
    assert seen == [True, False, False, True, False, False, True]
    other = make(r1_every=3)
    other.load_state_dict(model.state_dict())
    assert other.done == 7
    assert "r1_image" not in loss_of(other, D)
    for turn in (D, G):
        torch.testing.assert_close(loss_of(other, turn), loss_of(model, turn), rtol=0, atol=0)


def test_the_average_follows():
    """(1 + t) / (10 + t) at first, so that a short run has an average; then the published 0.5^(32 / 10000)."""
    model = make()
    held, value = model.average.generator.image.weight, model.autoencoder.generator.image.weight
    start = held.clone()
    assert torch.equal(held, value)
    with torch.no_grad():
        value.add_(1)
    model.after_step(0.1)
    torch.testing.assert_close(held, start + 1 - 2 / 11)
    model.done = 10_000
    gap = value - held.clone()
    model.after_step(0.9)
    torch.testing.assert_close(value - held, gap * 0.5 ** (32 / 10_000))
    assert model.encoder is model.autoencoder.encoder
    assert "encoder" not in dict(model.named_children())


@torch.no_grad()
def test_preview():
    model = make().eval()
    images, _ = radiographs()
    shown, masked, rebuilt = model.preview(images)
    assert torch.equal(shown, images)
    assert masked.isnan().all()
    assert rebuilt.shape == images.shape
    model.autoencoder.generator.image.bias.add_(9)  # what is shown is the average
    torch.testing.assert_close(model.preview(images)[2], rebuilt)


def test_no_mask_is_the_central_half():
    images, _ = radiographs()
    central = torch.zeros(4, 32, 32)
    central[:, 8:24, 8:24] = 1
    found = []
    for masks in (None, torch.zeros(4, 32, 32), central):
        torch.manual_seed(1)
        found.append(make()(images, masks=masks, turn=G)["loss"].item())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("turn", [D, G])
def test_bf16(turn):
    """Under autocast the losses are near those without, and single precision."""
    model = make()
    plain = loss_of(model, turn)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss_of(model, turn)
    for name, value in mixed.items():
        assert value.dtype == torch.float32, name
        assert value.item() == pytest.approx(plain[name].item(), rel=0.1, abs=0.02), name
    mixed["loss"].backward()
    assert all(p.grad.isfinite().all() for group in model.groups(turn, 0) for p in group["params"])


class PooledOnly(nn.Module):
    """A convolutional encoder whose map is coarser than the structure, with batch statistics."""

    def __init__(self):
        super().__init__()
        self.dim, self.depth, self.grid, self.patch, self.channels = 6, 0, (1, 1), (32, 32), 1
        self.net = nn.Sequential(nn.Conv2d(1, 6, 32, 32), nn.BatchNorm2d(6))

    def forward(self, x):
        y = self.net(x)
        return Features(y.mean(dim=(2, 3)), y, ())


def test_any_encoder():
    model = make(PooledOnly())
    loss_of(model, G)["loss"].backward()
    assert model.encoder.net[0].weight.grad.norm() > 0
    model.after_step(1.0)
    torch.testing.assert_close(model.average.encoder.net[1].running_mean, model.encoder.net[1].running_mean)


def test_refusals():
    with pytest.raises(UsageError, match="2-D"):
        make(VisionTransformerEncoder(1, (32, 32, 32), (16, 16, 16), 24, 2, 3))
    model = make()
    with pytest.raises(UsageError, match=r"pretrain\.batch=2"):
        loss_of(model, D, batch=1)
    with pytest.raises(UsageError, match=r"recipe\.roi"):
        loss_of(model, D, roi=(40, 32))


def test_the_card():
    card, options = LSAE(), LSAEOptions()
    assert card.needs(options) <= Texture().provides(TextureOptions())
    assert card.source(options) is None
    stage = {"steps": 10, "batch": 2, "lr": 1e-3}
    recipe = Recipe(name="x", summary="x", roi=(32, 32), pretrain=stage, finetune=stage)
    assert card.extra_samples(options, recipe, 5) == 0


class Engine(nn.Module):
    """What the engine puts around an objective."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, batch, turn):
        images, masks = batch.split(1, dim=1)
        return self.objective(images, masks=masks[:, 0], turn=turn)


def batch_of(step):
    images, masks = radiographs(seed=step)
    return torch.cat([images, masks[:, None].float()], dim=1)


def make_plan(folder, encoder="texture", steps=8, lr=1e-3, **changes):
    model = make(encoder, r1_every=4)
    options = {"optimizer": "adam", "betas": (0.0, 0.99), "weight_decay": 0.0, "warmup": 0.0, "schedule": "constant"}
    stage = Stage(steps=steps, batch=4, lr=lr, **options | changes)
    turns = {turn: model.groups(turn, stage.weight_decay) for turn in model.wants.turns}
    return loop.Plan(
        "pretrain", Engine(model), turns, batch_of, stage, steps, seed=3, folder=folder, after_step=model.after_step
    )


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


def test_the_real_loop_killed_and_continued(tmp_path, accelerator):
    """Stopped after 3 of 8 steps and continued: the weights, the average and the losses of the run that was not."""
    whole = make_plan(tmp_path / "whole")
    first = loop.train(whole, loop.Setting(accelerator))

    def stop_after(plan, steps):
        inner, count = plan.after_step, [0]

        def after(done):
            inner(done)
            count[0] += 1
            if count[0] == steps:
                os.kill(os.getpid(), signal.SIGTERM)

        plan.after_step = after
        return plan

    with pytest.raises(Interrupted):
        loop.train(stop_after(make_plan(tmp_path / "cut"), 3), loop.Setting(accelerator))
    again = make_plan(tmp_path / "cut")
    second = loop.train(again, loop.Setting(accelerator))
    assert second.losses == first.losses
    assert len(first.losses) == 8
    torch.testing.assert_close(again.module.state_dict(), whole.module.state_dict(), rtol=0, atol=0)
    assert again.module.objective.done == 8


def test_it_learns(tmp_path, accelerator):
    """150 steps on one batch, at the rate of the published code: the reconstruction's error falls by a third."""
    plan = make_plan(tmp_path, steps=150, lr=2e-3)
    plan.batch = lambda step: batch_of(0)
    model = plan.module.objective
    before = loss_of(model, G)["recon"].item()
    history = loop.train(plan, loop.Setting(accelerator))
    assert all(map(math.isfinite, history.losses))
    assert loss_of(model, G)["recon"].item() < 2 / 3 * before


def test_accumulation_counts_steps(tmp_path, accelerator):
    """Two parts per step are one step: penalties and averages go by steps."""
    plan = make_plan(tmp_path, steps=2, accumulate=2)
    loop.train(plan, loop.Setting(accelerator))
    assert plan.module.objective.done == 2
