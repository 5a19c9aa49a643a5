"""The only optimiser loop.

Everything random in step t comes from (seed, t): batches are drawn by a pure function of the step, and the generators
are seeded anew before each step. A run that was killed and continued is therefore the run that was not.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from numpy.random import SeedSequence
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mae_bench.engine import checkpoint
from mae_bench.engine.onednn import use_onednn
from mae_bench.engine.progress import Reporter, Silent
from mae_bench.errors import Interrupted, RunFailed, UsageError
from mae_bench.recipe import Stage

LOOK_EVERY = 20  # steps between looks at the losses: the only times the host waits for the device
RETREATS = 3  # returns to the last good checkpoint before giving up
GOOD_EVERY = 500  # steps between the states that a retreat can return to
WORKERS = 8  # most loader processes per GPU; on the CPU they would only take its cores from the step


@dataclass(frozen=True)
class Setting:
    """How to run, as opposed to what. Nothing here enters the key; what changes bits is in the record's environment."""

    accelerator: Accelerator
    reporter: Reporter = field(default_factory=Silent)
    checkpoint_minutes: float = 5.0
    compile: bool = False
    site_workers: int = 0  # processes that train sites of a federation; 0: this one, one site after the other
    site_engine: Literal["workers", "ray"] = "workers"


@dataclass
class History:
    """losses: one per step. seconds: over all parts of an interrupted run."""

    losses: list[float] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Plan:
    """One stage of training.

    module: forward(batch) gives named losses, `loss` is minimised; with several turns forward(batch, turn). turns:
    optimiser groups by turn, each group with its `scale` of the rate; the turns of a step follow each other. batch:
    the batch of a step. after_step: called with the share of the stage that is done. check: called after `checks`
    evenly spaced steps; what it wants kept over a restart it puts in `state`. logged_from: where trackers start
    counting the steps of this stage.
    """

    name: str
    module: nn.Module
    turns: Mapping[str, list[dict[str, Any]]]
    batch: Callable[[int], Any]
    stage: Stage
    steps: int
    seed: int
    folder: Path
    after_step: Callable[[float], None] = lambda done: None
    check: Callable[[int], None] | None = None
    checks: int = 1
    state: dict[str, Any] = field(default_factory=dict)
    logged_from: int = 0

    def check_steps(self) -> set[int]:
        """Steps after which `check` runs; the last step is one of them."""
        if self.check is None:
            return set()
        return {math.ceil(self.steps * number / self.checks) for number in range(1, self.checks + 1)}


def rate(step: int, steps: int, stage: Stage) -> float:
    """Share of the peak rate at `step`: linear from 0 over the warm-up, then by schedule (cosine to 0: PAPER 3)."""
    rising = math.ceil(steps * stage.warmup)
    if step < rising:
        return (step + 1) / rising
    if stage.schedule == "constant":
        return 1.0
    if stage.schedule == "step":
        return float(0.1 ** sum(step >= share * steps for share in stage.milestones))
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def decay_groups(module: nn.Module, weight_decay: float, scales: dict[nn.Parameter, float]) -> list[dict[str, Any]]:
    """Optimiser groups by rate scale and decay; vectors, tokens and position tables do not decay (PAPER 3b)."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(("token", "pos_embed"))
            groups.setdefault((scales.get(parameter, 1.0), decays), []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "weight_decay": weight_decay if decays else 0.0}
        for (scale, decays), parameters in groups.items()
    ]


def make_optimizer(groups: list[dict[str, Any]], stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser; kernels that do all parameters at once."""
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.lr, momentum=stage.betas[0], fused=True)
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=stage.lr, betas=stage.betas, fused=True)


def train(plan: Plan, setting: Setting) -> History:
    """Run the stage from its checkpoint, or from the start, to the end.

    Raises:
        Interrupted: a signal came; the checkpoint is written.
        RunFailed: the loss or the weights were not finite RETREATS + 1 times.
        UsageError: the batch cannot be cut as asked.
    """
    return Loop(plan, setting).run()


def clear(folder: Path) -> None:
    """Remove what only an unfinished stage needs."""
    for name in ("checkpoint.pt", "good.pt"):
        (folder / name).unlink(missing_ok=True)


class _Steps(Dataset[Any]):
    """Batches by step, so that loader processes can draw them."""

    def __init__(self, batch: Callable[[int], Any]) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> Any:
        return self.batch(step)


class Loop:
    """One stage in the making; `engine.rounds` makes parts of one at a site."""

    def __init__(self, plan: Plan, setting: Setting) -> None:
        self.plan, self.accelerator, self.reporter = plan, setting.accelerator, setting.reporter
        self.every = setting.checkpoint_minutes * 60
        self.path, self.good = plan.folder / "checkpoint.pt", plan.folder / "good.pt"
        each = plan.stage.batch // self.accelerator.num_processes * plan.stage.crops
        if each % plan.stage.accumulate:
            raise UsageError(f"--set {plan.name}.accumulate: {plan.stage.accumulate} does not divide {each} crops")
        self.optimizers = {turn: make_optimizer(groups, plan.stage) for turn, groups in plan.turns.items()}
        self.together = len(plan.turns) == 1
        # Turns use some of the parameters each, and penalties differentiate twice: neither is for DDP's hooks, so
        # then the gradients are averaged after each turn instead.
        # A compiler chooses its own matrix products.
        module = plan.module if setting.compile else use_onednn(plan.module)
        self.module = self.accelerator.prepare_model(module, evaluation_mode=not self.together)
        self.steppers = {turn: self.accelerator.prepare_optimizer(each) for turn, each in self.optimizers.items()}
        if setting.compile:
            self.module = torch.compile(self.module)
        self.history = History()
        self.step, self.end = 0, plan.steps
        self.slower = 1.0  # factor on the rate after retreats
        self.recent: list[Tensor] = []
        self.failed = 0  # the step whose loss was not finite

    def run(self) -> History:
        """Run to the end of the stage."""
        # Signals are watched from before the first checkpoint: whoever sees one there may send the other.
        with checkpoint.stop_on_signals() as stop:
            self._begin()
            self.reporter.start(self.plan.name, self.plan.steps)
            while self.step < self.end:
                self._run_until_retreat(stop)
        return self.history

    def _begin(self) -> None:
        state = checkpoint.load(self.path)
        if state is not None:
            self._restore(state)
            if self.step:
                self.reporter.note(f"{self.plan.name}: continuing at step {self.step} of {self.plan.steps}")
        else:
            self._save(self.good)
            self._save(self.path)

    def _run_until_retreat(self, stop: checkpoint.StopFlag) -> None:
        """Step until the end of the stage, or until the losses force a return to the last checkpoint."""
        began = saved = time.monotonic()
        before = self.history.seconds
        checks = self.plan.check_steps()
        self.module.train()
        for batch in self._batches():
            self._one_step(batch)
            self.step += 1
            last, checking = self.step == self.end, self.step in checks
            # Read once: a signal that comes later in this step is answered after the next one.
            stopping, due = stop.received, time.monotonic() - saved > self.every
            if last or checking or self.step % LOOK_EVERY == 0 or ((stopping or due) and self.alone):
                self.history.seconds = before + time.monotonic() - began
                finite, stopping, due = self._look(stopping, due)
                if not finite:
                    self._retreat()
                    return
            elif not self.alone:
                continue  # several processes decide together, when they look
            if checking and self.plan.check is not None:
                self.module.eval()
                self.plan.check(self.step)
                self.module.train()
            if self.step % GOOD_EVERY == 0 and not last:
                self._save(self.good)
            if stopping or due or (checking and not last):
                self._save(self.path)
                saved = time.monotonic()
            if stopping:
                raise Interrupted(
                    f"stopped in {self.plan.name} at step {self.step}; the same command continues from there"
                )

    def _batches(self) -> Iterator[Any]:
        device = self.accelerator.device
        cuda = device.type == "cuda"
        workers = self._workers() if cuda else 0
        loader = DataLoader(
            _Steps(self.plan.batch),
            batch_size=None,
            sampler=range(self.step, self.end),
            num_workers=workers,
            prefetch_factor=1 if workers else None,
            pin_memory=cuda,
        )
        for batch in loader:
            yield send_to_device(batch, device, non_blocking=True)

    def _workers(self) -> int:
        """Loader processes: each holds up to two batches in shared memory, of which containers often have little."""
        processes = int(self.accelerator.num_processes)
        batch = _bytes_of(self.plan.batch(self.step))
        room = shutil.disk_usage("/dev/shm").free // processes // (2 * batch)
        return min(WORKERS, max(1, len(os.sched_getaffinity(0)) // processes), room)

    def _one_step(self, batch: Any) -> None:
        parts = self.plan.stage.accumulate
        set_seed(_mix(self.plan.seed, self.step, self.accelerator.process_index))
        factor = self.plan.stage.lr * self.slower * rate(self.step, self.plan.steps, self.plan.stage)
        total = torch.zeros((), device=self.accelerator.device)
        for turn, stepper in self.steppers.items():
            for group in self.optimizers[turn].param_groups:
                group["lr"] = factor * group["scale"]
            for part in range(parts):
                # Gradients travel between processes once per step, with the last part.
                quiet = self.together and part < parts - 1
                with self.accelerator.no_sync(self.module) if quiet else contextlib.nullcontext():
                    piece = _part(batch, part, parts)
                    losses = self.module(piece) if self.together else self.module(piece, turn)
                    loss = losses["loss"] / parts
                    self.accelerator.backward(loss)
                total = total + loss.detach()
            if not self.together:
                self._average_gradients(turn)
            if self.plan.stage.clip is not None:
                parameters = [each for group in self.optimizers[turn].param_groups for each in group["params"]]
                self.accelerator.clip_grad_norm_(parameters, self.plan.stage.clip)
            stepper.step()
            self.plan.module.zero_grad()  # also what a turn left on parameters that are not its own
        self.plan.after_step((self.step + 1) / self.plan.steps)
        self.recent.append(total)

    def _average_gradients(self, turn: str) -> None:
        if self.alone:
            return
        for group in self.optimizers[turn].param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return bool(self.accelerator.num_processes == 1)

    def _look(self, stopping: bool, due: bool) -> tuple[bool, bool, bool]:
        """Bring the losses since the last look to the host.

        Returns:
            Whether all losses and weights are finite, whether to stop, whether a checkpoint is due: the same on all
            processes.
        """
        weights = torch.stack(torch._foreach_norm([each.detach() for each in self.plan.module.parameters()])).sum()
        flags = torch.tensor([float(stopping), float(due)], device=weights.device)
        told = torch.cat([torch.stack([*self.recent, weights]).float(), flags])
        told = self.accelerator.reduce(told, reduction="mean").cpu()
        values, stopping, due = told[: len(self.recent)], bool(told[-2] > 0), bool(told[-1] > 0)
        seen, self.recent = self.step - len(self.recent), []
        if bad := torch.isfinite(told).logical_not().nonzero().flatten().tolist():
            # Weights that are not finite show in the loss of the next step: the step is the same whoever looks when.
            self.failed = seen + int(bad[0]) + 1
            return False, stopping, due
        self.history.losses += values.tolist()
        mean = float(values.mean())
        self.reporter.advance(self.step, loss=mean)
        if self.accelerator.trackers:
            self.accelerator.log({f"{self.plan.name}/loss": mean}, step=self.plan.logged_from + self.step)
        return True, stopping, due

    def _retreat(self) -> None:
        at, slower, seconds = self.failed, self.slower / 2, self.history.seconds
        events = [
            *self.history.events,
            {"event": "loss not finite", "stage": self.plan.name, "step": at, "rate": slower},
        ]
        if len(events) > RETREATS:
            # The next try starts afresh, not just before the failure.
            if self.accelerator.is_main_process:
                clear(self.plan.folder)
            raise RunFailed(
                f"{self.plan.name} diverged: the loss was not finite at step {at}, after {RETREATS} retries"
            )
        # Not to the newest checkpoint, whose step depends on the clock: a run that is repeated must retreat alike.
        state = checkpoint.load(self.good)
        assert state is not None
        self._restore(state)
        self.slower, self.history.events, self.history.seconds = slower, events, seconds
        self._save(self.path)
        self.reporter.note(f"{self.plan.name}: loss not finite at step {at}; back to step {self.step} at half the rate")

    def _save(self, path: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        checkpoint.save(
            path,
            {
                "step": self.step,
                "module": self.plan.module.state_dict(),
                "optimizers": {turn: each.state_dict() for turn, each in self.optimizers.items()},
                "slower": self.slower,
                "losses": self.history.losses,
                "events": self.history.events,
                "seconds": self.history.seconds,
                "state": self.plan.state,
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.slower = state["step"], state["slower"]
        self.plan.module.load_state_dict(state["module"])
        for turn, each in self.optimizers.items():
            each.load_state_dict(state["optimizers"][turn])
        self.history = History(state["losses"], state["events"], state["seconds"])
        self.plan.state.clear()
        self.plan.state.update(state["state"])
        self.recent = []


def _mix(*numbers: int) -> int:
    """One 31-bit seed from several numbers."""
    return int(SeedSequence(numbers).generate_state(1)[0] >> 1)


def _bytes_of(batch: Any) -> int:
    """Bytes of a tensor or an array, or of a tuple of them and Nones; at least one."""
    parts = batch if isinstance(batch, tuple) else (batch,)
    return max(1, sum(int(part.nbytes) for part in parts if part is not None))


def _part(batch: Any, part: int, parts: int) -> Any:
    """Part `part` of `parts` of a tensor, or of a named tuple of tensors and Nones."""
    if parts == 1 or batch is None:
        return batch
    if isinstance(batch, Tensor):
        return batch.chunk(parts)[part]
    return type(batch)(*(_part(item, part, parts) for item in batch))
