"""The loop: schedule and groups against their formulas; killed and continued equals uninterrupted; retreats."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from mae_bench.engine import checkpoint, loop
from mae_bench.engine.device import make_accelerator
from mae_bench.errors import Interrupted, RunFailed
from mae_bench.recipe import Stage


class Regression(nn.Module):
    """A small net with dropout, so that a wrong generator state shows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1))

    def forward(self, batch):
        return {"loss": (self.net(batch) - batch.sum(1, keepdim=True)).square().mean()}


def batch_of(step):
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(step))


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


def make_stage(**changes):
    return Stage(steps=10, batch=8, lr=1e-2, **changes)


def make_plan(folder, module=None, steps=50, **changes):
    module = module or Regression()
    stage = Stage(steps=steps, batch=8, lr=1e-2, **changes)
    return loop.Plan(
        "pretrain", module, {"": loop.decay_groups(module, 0.05, {})}, batch_of, stage, steps, seed=3, folder=folder
    )


def weights(plan):
    return {name: value.clone() for name, value in plan.module.state_dict().items()}


def test_rate_rises_linearly_then_falls_as_a_cosine():
    rates = [loop.rate(step, 100, make_stage(warmup=0.1)) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 90)) for k in range(90)])
    assert loop.rate(0, 10, make_stage(warmup=0.0)) == 1.0


def test_other_schedules():
    constant = make_stage(warmup=0.1, schedule="constant")
    assert [loop.rate(step, 100, constant) for step in (0, 9, 10, 99)] == [0.1, 1.0, 1.0, 1.0]
    steps = make_stage(warmup=0.0, schedule="step", milestones=(0.5, 0.9))
    assert [loop.rate(step, 10, steps) for step in (0, 4, 5, 8, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=0.05)),
        ("adam", lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.05)),
    ],
)
def test_optimisers_are_what_they_are_called(name, peer):
    own, other = nn_without_dropout(), nn_without_dropout()
    groups = [{"params": list(own.parameters()), "scale": 1.0, "weight_decay": 0.05}]
    optimizers = [loop.make_optimizer(groups, make_stage(optimizer=name, betas=(0.9, 0.99))), peer(other.parameters())]
    for step in range(3):
        for module, optimizer in zip((own, other), optimizers, strict=True):
            optimizer.zero_grad()
            module(batch_of(step))["loss"].backward()
            optimizer.step()
    for a, b in zip(own.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class Adversaries(nn.Module):
    """Two nets that pull at one another, so that the order of turns and whose gradients count show."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.one, self.two = nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, batch, turn):
        gap = (self.one(batch) - self.two(batch)).square().mean()
        return {"loss": gap - batch.mean() * self.one.bias.sum() if turn == "one" else (1 - gap).square()}


def test_turns_follow_each_other_each_with_its_own_optimiser(tmp_path, accelerator):
    """Against two optimisers written out; each turn sees what the one before it did."""
    module, peer = Adversaries(), Adversaries()
    plan = make_plan(tmp_path, module, steps=7, weight_decay=0.0)
    plan.turns = {
        turn: [{"params": list(getattr(module, turn).parameters()), "scale": scale, "weight_decay": 0.0}]
        for turn, scale in (("one", 1.0), ("two", 0.5))
    }
    loop.train(plan, loop.Setting(accelerator))
    optimizers = {
        turn: torch.optim.AdamW(getattr(peer, turn).parameters(), betas=(0.9, 0.95), weight_decay=0.0)
        for turn in plan.turns
    }
    for step in range(7):
        for turn, scale in (("one", 1.0), ("two", 0.5)):
            optimizers[turn].param_groups[0]["lr"] = scale * 1e-2 * loop.rate(step, 7, plan.stage)
            peer(batch_of(step), turn)["loss"].backward()
            optimizers[turn].step()
            peer.zero_grad()
    for a, b in zip(module.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_after_step_is_told_how_much_is_done(tmp_path, accelerator):
    plan, told = make_plan(tmp_path, steps=4), []
    plan.after_step = told.append
    loop.train(plan, loop.Setting(accelerator))
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_only_matrices_decay():
    module = nn.Module()
    module.layer, module.norm = nn.Linear(3, 2), nn.LayerNorm(2)
    module.cls_token, module.pos_embed = nn.Parameter(torch.zeros(1, 1, 2)), nn.Parameter(torch.zeros(4, 2))
    groups = loop.decay_groups(module, 0.05, {module.layer.bias: 0.5})
    decaying = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert [p is module.layer.weight for p in decaying] == [True]
    assert {group["scale"] for group in groups} == {0.5, 1.0}
    assert sum(len(group["params"]) for group in groups) == 6


@pytest.mark.parametrize("clip", [None, 0.5])
def test_equals_a_plain_adamw_loop(tmp_path, accelerator, clip):
    """The same steps written out with torch alone."""
    plan = make_plan(tmp_path, module=nn_without_dropout(), clip=clip, betas=(0.9, 0.95))
    peer = nn_without_dropout()
    history = loop.train(plan, loop.Setting(accelerator))
    matrices = [p for p in peer.parameters() if p.ndim > 1]
    vectors = [p for p in peer.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    losses = []
    for step in range(50):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * loop.rate(step, 50, plan.stage)
        optimizer.zero_grad()
        loss = peer(batch_of(step))["loss"]
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(peer.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    assert history.losses == pytest.approx(losses, rel=1e-4)
    for own, other in zip(plan.module.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def nn_without_dropout():
    module = Regression()
    module.net[2] = nn.Identity()
    return module


def test_accumulation_equals_the_whole_batch(tmp_path, accelerator):
    whole, parts = nn_without_dropout(), nn_without_dropout()
    loop.train(make_plan(tmp_path / "a", whole, steps=5), loop.Setting(accelerator))
    loop.train(make_plan(tmp_path / "b", parts, steps=5, accumulate=4), loop.Setting(accelerator))
    for own, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at", [1, 20, 33, 49])
def test_stopped_and_continued_equals_uninterrupted(tmp_path, accelerator, at):
    """A signal at step `at`, then a new process's worth of objects: every bit of weights and losses is the same."""
    straight = make_plan(tmp_path / "straight")
    expected = loop.train(straight, loop.Setting(accelerator))
    first = make_plan(tmp_path / "cut")
    first.after_step = count_then(at, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=f"step {at}"):
        loop.train(first, loop.Setting(accelerator))
    second = make_plan(tmp_path / "cut", module=Regression())
    history = loop.train(second, loop.Setting(accelerator))
    assert history.losses == expected.losses
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(second)[name]), name


def count_then(at, act):
    done = []

    def after_step(done_share):
        done.append(1)
        if len(done) == at:
            act()

    return after_step


class DivergesWhileFast(Regression):
    """Its loss is not finite at step 30 for as long as the rate is above a limit."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.optimizer_rate = limit, lambda: 1.0
        self.calls = 0

    def forward(self, batch):
        loss = super().forward(batch)["loss"]
        self.calls += 1
        if torch.equal(batch, batch_of(29)) and self.optimizer_rate() > self.limit:
            loss = loss * float("nan")
        return {"loss": loss}


def test_returns_to_the_last_good_checkpoint_at_half_the_rate(tmp_path, accelerator):
    module = DivergesWhileFast(limit=0.3)
    plan = make_plan(tmp_path, module)
    runner = loop.Loop(plan, loop.Setting(accelerator, checkpoint_minutes=0))
    module.optimizer_rate = lambda: runner.slower
    history = runner.run()
    assert [event["rate"] for event in history.events] == [0.5, 0.25]
    assert all(event["event"] == "loss not finite" for event in history.events)
    assert len(history.losses) == 50
    assert all(math.isfinite(loss) for loss in history.losses)


def test_retreats_do_not_depend_on_when_checkpoints_were_written(tmp_path, accelerator):
    """With a checkpoint after every step and with none: the same weights, losses and events."""
    ends = []
    for minutes in (0, 60):
        module = DivergesWhileFast(limit=0.6)
        plan = make_plan(tmp_path / str(minutes), module)
        runner = loop.Loop(plan, loop.Setting(accelerator, checkpoint_minutes=minutes))
        module.optimizer_rate = lambda runner=runner: runner.slower
        history = runner.run()
        ends.append((history.losses, history.events, weights(plan)))
    assert ends[0][:2] == ends[1][:2]
    assert len(ends[0][1]) == 1
    assert all(torch.equal(value, ends[1][2][name]) for name, value in ends[0][2].items())


def test_weights_that_are_not_finite_are_never_a_checkpoint(tmp_path, accelerator):
    """The loss of a step is computed before its weights: they are looked at as well."""
    plan = make_plan(tmp_path, steps=20)
    plan.after_step = lambda done: plan.module.net[3].bias.data.fill_(float("inf"))
    with pytest.raises(RunFailed, match="not finite"):
        loop.train(plan, loop.Setting(accelerator, checkpoint_minutes=0))
    assert not list(tmp_path.iterdir())


def test_gives_up_after_three_returns(tmp_path, accelerator):
    plan = make_plan(tmp_path, DivergesWhileFast(limit=0.0))
    with pytest.raises(RunFailed, match="not finite"):
        loop.train(plan, loop.Setting(accelerator))


def test_checks_run_evenly_and_their_state_is_kept(tmp_path, accelerator):
    plan = make_plan(tmp_path, steps=10)
    plan.checks, seen = 4, []
    plan.check = lambda step: seen.append(step)
    loop.train(plan, loop.Setting(accelerator))
    assert seen == [3, 5, 8, 10]


def test_checkpoints_are_whole_or_absent(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"step": 3, "module": {"w": torch.ones(2)}})
    assert checkpoint.load(path)["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
