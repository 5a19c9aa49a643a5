"""Momentum contrast against lightly, closed forms in double precision, SciPy's blur and batch norms group by group."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from torch import nn

from mae_bench.engine import loop
from mae_bench.engine.device import make_accelerator
from mae_bench.errors import Interrupted, UsageError
from mae_bench.interfaces import Features
from mae_bench.recipe import Stage
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.pretraining.moco import MoCo, MoCoOptions, v3
from mae_bench_plugins.pretraining.moco.batch_stats import GroupedBatchNorm, count_groups
from mae_bench_plugins.pretraining.moco.blur import RADIUS, SIGMA, blur, random_blur
from mae_bench_plugins.pretraining.moco.keys import follow, slow_copy
from mae_bench_plugins.pretraining.moco.queue import KeyQueue
from mae_bench_plugins.pretraining.moco.v2 import MoCoV2
from mae_bench_plugins.pretraining.moco.v3 import MoCoV3

ROIS = [(16, 16), (8, 8, 8)]
SMALL = {"dim": 8, "hidden": 16, "queue": 12}


class ConvEncoder(nn.Module):
    """Two convolutions with batch norm, in 2-D or 3-D."""

    def __init__(self, ndim, norm=True):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        batch_norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[ndim] if norm else lambda width: nn.Identity()
        self.dim, self.depth, self.channels = 16, 0, 1
        self.net = nn.Sequential(
            convolution(1, 8, 3, 2, 1, bias=False), batch_norm(8), nn.ReLU(),
            convolution(8, 16, 3, 2, 1, bias=False), batch_norm(16), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        features = self.net(x)
        return Features(features.flatten(2).mean(2), features, ())


def conv(roi, **changes):
    torch.manual_seed(0)
    return ConvEncoder(len(roi), **changes)


def vit(roi, position="sincos"):
    torch.manual_seed(0)
    return VisionTransformerEncoder(1, roi, [4] * len(roi), 24, 2, 3, position=position)


def make(encoder, **options):
    torch.manual_seed(1)
    return MoCo().objective(MoCoOptions(**{**SMALL, **options}), encoder)


def images(roi, count=8, seed=2):
    return torch.randn(count, 2, 1, *roi, generator=torch.Generator().manual_seed(seed))


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


# The loss


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_v2_loss_is_lightlys_with_a_memory_bank(temperature):
    """The same queue, full: loss and gradient of NTXentLoss, and the bank after it."""
    lightly = pytest.importorskip("lightly.loss")
    peer = lightly.NTXentLoss(temperature=temperature, memory_bank_size=(24, 8))
    model = make(conv((16, 16)), queue=24, temperature=temperature)
    model.queue.push(peer.memory_bank.bank)
    torch.manual_seed(3)
    raw, keys = torch.randn(6, 8, requires_grad=True), F.normalize(torch.randn(6, 8), dim=1)
    mine = model.contrast(F.normalize(raw, dim=1), keys)
    (gradient,) = torch.autograd.grad(mine, raw)
    theirs = peer(raw, keys)
    (expected,) = torch.autograd.grad(theirs, raw)
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    model.queue.push(keys)
    torch.testing.assert_close(model.queue.keys, peer.memory_bank.bank)


@pytest.mark.parametrize("filled", [0, 5, 12])
def test_v2_loss_is_infonce_over_what_was_seen(filled):
    """Closed form in float64; places of the queue that hold no key yet take no part, in the gradient either."""
    model = make(conv((16, 16)), temperature=0.3)
    torch.manual_seed(4)
    q, k, n = (F.normalize(torch.randn(size, 8, dtype=torch.float64), dim=1) for size in (5, 5, 12))
    model.queue.push(n[:filled])
    q.requires_grad_()
    positive = (q * k).sum(1) / 0.3
    everything = torch.cat([positive[:, None], q @ n[:filled].float().double().T / 0.3], dim=1)
    expected = (everything.logsumexp(1) - positive).mean()
    found = model.contrast(q, k)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    gradients = [torch.autograd.grad(loss, q)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_v3_loss_is_the_symmetric_infonce():
    """Closed form in float64 over the whole forward; views and directions told apart."""
    model = make(vit((16, 16)), temperature=0.3).double()
    batch = images((16, 16)).double()
    found = model(batch)["loss"]

    def embed(net, *heads):
        out = []
        for view in (0, 1):
            x = net(batch[:, view]).pooled
            for head in heads:
                x = head(x)
            out.append(x / x.norm(dim=1, keepdim=True))
        return out

    q, k = embed(model.encoder, model.projector, model.predictor), embed(model.key_encoder, model.key_projector)
    expected = torch.zeros((), dtype=torch.float64)
    for own, other in ((q[0], k[1]), (q[1], k[0])):
        logits = own @ other.T / 0.3
        expected = expected + 2 * 0.3 * (logits.logsumexp(1) - logits.diagonal()).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_losses_of_known_vectors():
    """A key like its query among n orthogonal others: log(1 + n exp(-1/T)), in v3 2T times that."""
    axes = torch.eye(8)
    two, three = make(conv((16, 16)), temperature=0.5), make(vit((16, 16)), temperature=0.4)
    two.queue.push(axes[3:])
    assert two.contrast(axes[:3], axes[:3]).item() == pytest.approx(np.log1p(5 * np.exp(-2)), rel=1e-5)
    assert three.contrast(axes, axes).item() == pytest.approx(0.8 * np.log1p(7 * np.exp(-2.5)), rel=1e-5)


@pytest.mark.parametrize("roi", ROIS)
@pytest.mark.parametrize("kind", [conv, vit])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_few_steps_lower_the_loss(roi, kind, version):
    """Positives come closer than they were, compared with the same negatives."""
    model = make(kind(roi), version=version, queue=64)
    batch = images(roi)
    if version == "v2":
        model.queue.push(F.normalize(torch.randn(64, 8, generator=torch.Generator().manual_seed(5)), dim=1))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    before, losses = state(model), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    learnt = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name, _ in model.key_encoder.named_parameters(prefix="key_encoder")} & learnt
    assert {name for name, each in model.named_parameters() if each.requires_grad} <= learnt


# Queries and keys


def test_version_follows_the_encoder():
    assert isinstance(make(vit((16, 16))), MoCoV3)
    assert isinstance(make(conv((16, 16))), MoCoV2)
    assert isinstance(make(vit((16, 16)), version="v2"), MoCoV2)
    assert isinstance(make(conv((16, 16)), version="v3"), MoCoV3)


def test_card():
    """Any encoder will do, and total budgets are the recipe's."""
    assert MoCo().needs(MoCoOptions()) == {"pooled"}
    assert MoCo().provides(MoCoOptions()) == set()
    assert MoCo().source(MoCoOptions()) is None
    assert all(plugin.wants.views == 2 for plugin in (MoCoV2, MoCoV3))


def test_defaults_are_the_authors():
    two = MoCo().objective(MoCoOptions(), conv((16, 16)))
    assert [tuple(p.shape) for p in two.projector.parameters()] == [(16, 16), (16,), (128, 16), (128,)]
    assert two.queue.keys.shape == (65536, 128)
    assert (two.momentum, two.temperature, two.blur) == (0.999, 0.2, 0)
    three = MoCo().objective(MoCoOptions(), vit((16, 16)))
    assert [tuple(p.shape) for p in three.projector.parameters() if p.ndim > 1] == [
        (4096, 24),
        (4096,) * 2,
        (256, 4096),
    ]
    assert [tuple(p.shape) for p in three.predictor.parameters() if p.ndim > 1] == [(4096, 256), (256, 4096)]
    for mlp, norms in ((three.projector, [True, True, False]), (three.predictor, [True, False])):
        assert [part.affine for part in mlp if isinstance(part, nn.BatchNorm1d)] == norms
        assert all(part.bias is None for part in mlp if isinstance(part, nn.Linear))
        assert isinstance(mlp[-1], nn.BatchNorm1d)
    assert (three.momentum, three.temperature) == (0.99, 0.2)


@pytest.mark.parametrize(
    "wrong",
    [{"queue": 0}, {"momentum": 1.1}, {"temperature": 0}, {"version": "v1"}, {"blur": 2}, {"group": 1}, {"dim": 1}],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        MoCoOptions(**wrong)


@pytest.mark.parametrize("kind", [conv, vit])
def test_keys_have_no_gradient(kind):
    model = make(kind((16, 16)))
    model.after_step(0.1)
    batch = images((16, 16)).requires_grad_()
    model.queue.push(F.normalize(torch.randn(12, 8), dim=1)) if hasattr(model, "queue") else None
    model(batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
        assert parameter.requires_grad != name.startswith("key_") or "patch_embed" in name or "pos_embed" in name, name
    first, second = batch.grad.unbind(1)
    assert first.abs().sum() > 0
    assert (second.abs().sum() > 0) == isinstance(model, MoCoV3)  # of v2, the second view only makes keys


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_v3_keeps_the_patch_embedding_and_fixed_positions(position):
    model = make(vit((8, 8, 8), position))
    assert not any(parameter.requires_grad for parameter in model.encoder.patch_embed.parameters())
    assert model.encoder.pos_embed.requires_grad == (position == "learned")
    assert model.encoder.blocks[0].attn.qkv.weight.requires_grad
    assert all(each.requires_grad for each in make(vit((8, 8, 8)), version="v2").encoder.parameters())


@settings(max_examples=20, deadline=None)
@given(momentum=st.floats(0, 1), seed=st.integers(0, 99))
def test_keys_follow_as_a_weighted_mean(momentum, seed):
    torch.manual_seed(seed)
    fast, slow = nn.Linear(3, 4), nn.Linear(3, 4).requires_grad_(False)
    before = [each.double() for each in slow.parameters()]
    follow(slow, fast, momentum)
    for old, new, query in zip(before, slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(new, (momentum * old + (1 - momentum) * query.double()).float())


@pytest.mark.parametrize("kind", [conv, vit])
def test_momentum_one_leaves_keys_and_zero_copies(kind):
    for momentum in (0, 1):
        model = make(kind((16, 16)), momentum=momentum)
        before = [each.clone() for each in model.key_encoder.parameters()]
        with torch.no_grad():
            for each in model.encoder.parameters():
                if each.requires_grad:
                    each.add_(1)
        model.after_step(0.0)
        for old, new, query in zip(before, model.key_encoder.parameters(), model.encoder.parameters(), strict=True):
            assert torch.equal(new, old if momentum else query)


def test_v3_momentum_rises_to_one_by_a_cosine():
    schedule = pytest.importorskip("lightly.utils.scheduler")
    model = make(vit((16, 16)), momentum=0.9)
    assert model.momentum_at(0) == pytest.approx(0.9)
    assert model.momentum_at(0.5) == pytest.approx(0.95)
    assert model.momentum_at(1) == 1
    for step in range(11):
        assert model.momentum_at(step / 10) == pytest.approx(schedule.cosine_schedule(step, 11, 0.9, 1.0))
    last = state(model.key_encoder)
    with torch.no_grad():
        model.encoder.cls_token.add_(1)
    model.after_step(1.0)
    assert same(last, state(model.key_encoder))


def test_slow_copies_are_apart():
    encoder = conv((16, 16))
    copy = slow_copy(encoder)
    assert same(state(copy), state(encoder))
    assert not {each.data_ptr() for each in copy.parameters()} & {each.data_ptr() for each in encoder.parameters()}


# The queue


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 9), pushes=st.lists(st.integers(0, 20), max_size=8))
def test_queue_holds_the_last_keys_in_a_ring(size, pushes):
    """Key number n lies in place n % size, whatever the batches were; places never written are empty."""
    queue, count = KeyQueue(size, 1), 0
    for push in pushes:
        queue.push(torch.arange(count + 1, count + push + 1)[:, None])
        count += push
    expected = np.zeros(size)
    for number in range(count):
        expected[number % size] = number + 1
    assert queue.keys[:, 0].tolist() == expected.tolist()
    assert queue.pointer.item() == count % size
    assert queue.filled.item() == min(count, size)
    shown = queue.similarities(torch.ones(2, 1), 0.5)
    assert shown.isfinite().sum().item() == 2 * min(count, size)
    assert shown[0, : min(count, size)].tolist() == (2 * expected[: min(count, size)]).tolist()


def test_keys_enter_the_queue_once_per_step():
    """After the step, also when the batch came in parts; all parts see the negatives from before the step."""
    whole, parts = make(conv((16, 16), norm=False)), make(conv((16, 16), norm=False))
    for model, count in ((whole, 1), (parts, 4)):
        for step in range(2):
            losses = [model(part)["loss"].item() for part in images((16, 16), seed=step).chunk(count)]
            assert model.queue.filled.item() == min(12, 8 * step)
            model.after_step(0.5)
        model.last = np.mean(losses)
    assert whole.last == pytest.approx(parts.last, rel=1e-5)
    assert whole.queue.pointer.item() == parts.queue.pointer.item() == 16 % 12
    torch.testing.assert_close(whole.queue.keys, parts.queue.keys)
    whole.after_step(0.6)
    assert whole.queue.pointer.item() == 4


@pytest.mark.parametrize("kind", [conv, vit])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_evaluation_changes_nothing(kind, version):
    model = make(kind((16, 16)), version=version).eval()
    before = state(model)
    with torch.no_grad():
        model(images((16, 16)))
        model.encoder(images((16, 16))[:, 0])
    assert model.preview(images((16, 16))[:, 0]) is None
    if version == "v2":
        model.after_step(0.5)  # nothing is waiting for the queue
    assert same(before, state(model))


# Batch statistics


@pytest.mark.parametrize("roi", [(6, 5), (4, 3, 5), ()])
@pytest.mark.parametrize("affine", [True, False])
def test_grouped_batch_norm_is_batch_norm_of_each_group(roi, affine):
    """Values, gradients and running statistics, in double precision; and evaluation is as ever."""
    torch.manual_seed(0)
    kind = {0: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(roi)]
    norm = kind(3, affine=affine).double()
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    peers = [slow_copy(norm).requires_grad_(affine) for _ in range(4)]
    x = torch.randn(12, 3, *roi, dtype=torch.float64) * 3 + 1
    cotangent = torch.randn_like(x)
    y = x.clone().requires_grad_()
    x.requires_grad_()
    with GroupedBatchNorm(4):
        found = norm(x)
    expected = torch.empty_like(found)
    for group, peer in enumerate(peers):
        expected[group::4] = peer(y[group::4])
    torch.testing.assert_close(found, expected)
    (found * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    if affine:
        torch.testing.assert_close(norm.weight.grad, sum(peer.weight.grad for peer in peers))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(norm, name), torch.stack([getattr(p, name) for p in peers]).mean(0))
    assert norm.num_batches_tracked.item() == 1
    norm.eval()
    plain = norm(x)
    with GroupedBatchNorm(4):
        assert torch.equal(norm(x), plain)


def test_grouped_batch_norm_reaches_timms():
    timm = pytest.importorskip("timm.layers")
    norm, x = timm.BatchNormAct2d(3), torch.randn(8, 3, 4, 4)
    with GroupedBatchNorm(2):
        found = norm(x)
    expected = torch.stack([timm.BatchNormAct2d(3)(part) for part in (x[::2], x[1::2])], dim=1).flatten(0, 1)
    torch.testing.assert_close(found, expected)


@settings(max_examples=60, deadline=None)
@given(batch=st.integers(1, 300), size=st.integers(2, 64))
def test_groups_are_equal_and_leave_another(batch, size):
    possible = [each for each in range(2, size + 1) if batch % each == 0 and each < batch]
    if batch < 4:
        assert count_groups(batch, size) == 1
    elif possible:
        assert count_groups(batch, size) == batch // max(possible)
    else:
        with pytest.raises(UsageError, match=r"--set pretrain\.batch"):
            count_groups(batch, size)


@pytest.mark.parametrize("roi", ROIS)
def test_keys_come_back_in_their_order(roi, monkeypatch):
    """Key i is that of image i, normalised with its group of the drawn order and no other."""
    model = make(conv(roi), group=3)
    batch = images(roi, count=6)[:, 1]
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: order)
    plain, found = slow_copy(model.key_encoder), model.keys(batch)
    for group in (order[::2], order[1::2]):
        features = plain(batch[group]).pooled
        torch.testing.assert_close(found[group], F.normalize(model.key_projector(features), dim=1))
    whole = F.normalize(model.key_projector(plain(batch).pooled), dim=1)
    assert (found - whole).abs().max() > 1e-3
    model.eval()
    settled = F.normalize(model.key_projector(model.key_encoder(batch).pooled), dim=1)
    torch.testing.assert_close(model.keys(batch), settled)


class Leak(nn.Module):
    """Answers with nothing but the mean by which its batch norm normalised."""

    dim = 64

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64, affine=False, eps=1e6)

    def forward(self, x):
        values = x.flatten(1)
        return Features(values - 1e3 * self.norm(values), values, ())


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Two groups of 8 that have one sample in common share 7 / 63 of the others; a batch of 64 and a group of it.
    [("shuffle", (1 + 7 * 7 / 63) / 8), ("split", (8 / 64) ** 0.5), ("plain", 1.0)],
)
def test_a_query_hardly_knows_its_key_by_the_batch(kind, expected):
    """The leak itself: the cosine of the statistics of a query and its key. That with the queue's keys is zero."""
    torch.manual_seed(0)
    model = make(Leak(), group=8, version="v2", **({} if kind == "plain" else {"batch_stats": kind}))
    model.projector = model.key_projector = nn.Identity()
    model.grouped = kind != "plain"
    cosines = []
    for _ in range(60):
        batch = torch.randn(64, 1, 8, 8)
        cosines.append((model.queries(batch) * model.keys(batch)).sum(1).mean().item())
    assert np.mean(cosines) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("kind", ["shuffle", "split"])
def test_batch_stats_say_what_queries_see(kind):
    model = make(conv((16, 16)), group=4, batch_stats=kind)
    batch = images((16, 16))[:, 0]
    peer = slow_copy(model.encoder)
    plain = F.normalize(model.projector(peer(batch).pooled), dim=1)
    assert torch.allclose(model.queries(batch), plain, atol=1e-5) == (kind == "split")


def test_layer_norms_need_no_groups():
    """An odd batch is fine, and no order is drawn."""
    model = make(vit((16, 16)), version="v2")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model(images((16, 16), count=5))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(UsageError, match="5 crops cannot be cut"):
        make(conv((16, 16)))(images((16, 16), count=5))


def test_v3_wants_something_to_compare():
    with pytest.raises(UsageError, match="one crop"):
        make(vit((16, 16)))(images((16, 16), count=1))


# Blur


@pytest.mark.parametrize("roi", [(20, 15), (9, 14, 11)])
def test_blur_is_scipys(roi):
    torch.manual_seed(0)
    x, sigma = torch.randn(4, 2, *roi), torch.tensor([0.0, 0.3, 1.0, 2.0])
    found = blur(x, sigma)
    assert torch.equal(found[0], x[0])
    for number in (1, 2, 3):
        for channel in (0, 1):
            expected = ndimage.gaussian_filter(
                x[number, channel].double().numpy(), sigma[number].item(), mode="nearest", radius=RADIUS
            )
            np.testing.assert_allclose(found[number, channel].numpy(), expected, atol=1e-5)


def test_share_of_blurred_images():
    torch.manual_seed(0)
    x = torch.randn(400, 1, 8, 8)
    changed = (random_blur(x, 0.3) - x).flatten(1).abs().amax(1) > 0
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.08)
    assert torch.equal(random_blur(x, 0.0), x)
    assert SIGMA == (0.1, 2.0)


@pytest.mark.parametrize("kind", [conv, vit])
def test_blur_reaches_both_views_in_training_only(kind, monkeypatch):
    model, seen = make(kind((16, 16)), blur=1.0), []
    for name in ("encoder", "key_encoder"):
        getattr(model, name).register_forward_pre_hook(lambda module, given: seen.append(given[0].std().item()))
    model(images((16, 16)))
    assert max(seen) < 0.95
    seen.clear()
    model.eval()(images((16, 16)))
    assert min(seen) > 0.95


# In the engine


@pytest.mark.parametrize("kind", [conv, vit])
def test_bf16_autocast(kind):
    """The loss is in single precision and near that of single precision; gradients are finite."""
    losses = []
    for enabled in (True, False):
        model = make(kind((16, 16)))
        if hasattr(model, "queue"):
            model.queue.push(F.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)), dim=1))
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(images((16, 16)))["loss"]
        assert loss.dtype == torch.float32
        loss.backward()
        assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)
        model.after_step(0.5)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("kind", [conv, vit])
def test_compiled_gives_the_same(kind):
    """The graph is traced whole or in parts; what it computes, and what it leaves in the queue, is the same."""
    ends = []
    for compiled in (False, True):
        model = make(kind((16, 16)), group=4)
        run = torch.compile(model, backend="eager") if compiled else model
        torch.manual_seed(0)
        losses = []
        for step in range(2):
            losses.append(run(images((16, 16), seed=step))["loss"].item())
            model.after_step(0.5)
        ends.append((losses, state(model)))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5)
    for name, value in ends[0][1].items():
        torch.testing.assert_close(value, ends[1][1][name], msg=name)


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


def make_plan(folder, model, after_step=None, **changes):
    stage = Stage(steps=8, batch=8, lr=1e-2, **changes)
    groups = loop.decay_groups(model, 0.05, {})
    return loop.Plan(
        "pretrain", model, {"": groups}, lambda step: images((16, 16), seed=step), stage, 8, 3, folder,
        after_step=after_step or model.after_step,
    )  # fmt: skip


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", [conv, vit])
def test_stopped_and_continued_equals_uninterrupted(tmp_path, accelerator, kind, accumulate):
    """Every bit of weights, slow weights, running statistics and queue, though the ring is cut in the middle."""
    straight = make(kind((16, 16)), blur=0.5)
    expected = loop.train(make_plan(tmp_path / "a", straight, accumulate=accumulate), loop.Setting(accelerator))
    first, done = make(kind((16, 16)), blur=0.5), []

    def stop_at_five(share):
        first.after_step(share)
        done.append(share)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    plan = make_plan(tmp_path / "b", first, after_step=stop_at_five, accumulate=accumulate)
    with pytest.raises(Interrupted, match="step 5"):
        loop.train(plan, loop.Setting(accelerator))
    second = make(kind((16, 16)), blur=0.5)
    history = loop.train(make_plan(tmp_path / "b", second, accumulate=accumulate), loop.Setting(accelerator))
    assert history.losses == expected.losses
    assert same(state(straight), state(second))
    assert done == [step / 8 for step in range(1, 6)]
    if kind is conv:
        assert straight.queue.pointer.item() == 8 * 8 % 12


@pytest.mark.parametrize("kind", [conv, vit])
def test_a_step_never_asks_the_device(kind, monkeypatch):
    """Tensors without data refuse whatever would make the host wait for a value."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on "meta"
    model = make(kind((16, 16)), blur=0.5, group=4).to("meta")
    for step in range(3):
        loss = model(torch.empty(8, 2, 1, 16, 16, device="meta"))["loss"]
        loss.backward()
        model.after_step(step / 3)
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


def test_v3_heads_are_synchronised_under_nccl(monkeypatch):
    """Those of the objective alone: the encoder is what it was."""
    monkeypatch.setattr(v3, "rank_and_world", lambda: (0, 2))
    monkeypatch.setattr(v3.dist, "get_backend", lambda: "nccl")
    model = make(conv((16, 16)), version="v3")
    for mlp in (model.projector, model.key_projector, model.predictor):
        assert not any(isinstance(part, nn.BatchNorm1d) for part in mlp)
        assert [part.affine for part in mlp if isinstance(part, nn.SyncBatchNorm)][-1] is False
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in model.encoder.modules())
    monkeypatch.setattr(v3.dist, "get_backend", lambda: "gloo")
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in make(vit((16, 16))).modules())


TWO_PROCESSES = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from mae_bench_plugins.pretraining.moco.keys import gather
from tests.plugins.pretraining.test_moco import conv, images, make, vectors, vit

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
for kind in (conv, vit):
    model = make(kind((16, 16), **({"norm": False} if kind is conv else {})), queue=20)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        wrapped(images((16, 16), seed=step).chunk(2)[rank])["loss"].backward()
        optimizer.step()
        model.after_step((step + 1) / 3)
    torch.save(model.state_dict(), f"{sys.argv[3]}/{kind.__name__}{rank}.pt")
queries, keys = (part.chunk(2)[rank] for part in vectors())
torch.save(model.contrast(queries, gather(keys)), f"{sys.argv[3]}/loss{rank}.pt")
dist.barrier()  # who leaves first takes the other's connection away
dist.destroy_process_group()
"""


def vectors():
    """Queries and keys of eight images."""
    torch.manual_seed(8)
    return F.normalize(torch.randn(2, 8, 8), dim=2).unbind()


@pytest.mark.slow
def test_two_processes_have_one_queue(tmp_path):
    """Under gloo and DDP: the same state on both; of v2 without batch norms, the state of one process."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TWO_PROCESSES, str(rank), str(tmp_path / "meet"), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[3],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-3000:]
    for name in ("conv", "vit"):
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1))
        for key, value in first.items():
            if "running" not in key:
                torch.testing.assert_close(value, second[key], msg=key)
    losses = [torch.load(tmp_path / f"loss{rank}.pt", weights_only=True).item() for rank in (0, 1)]
    assert np.mean(losses) == pytest.approx(make(vit((16, 16))).contrast(*vectors()).item(), rel=1e-5)
    alone = make(conv((16, 16), norm=False), queue=20)
    optimizer = torch.optim.SGD([p for p in alone.parameters() if p.requires_grad], lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        alone(images((16, 16), seed=step))["loss"].backward()
        optimizer.step()
        alone.after_step((step + 1) / 3)
    first = torch.load(tmp_path / "conv0.pt", weights_only=True)
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(value, first[key], rtol=1e-4, atol=1e-5, msg=key)
