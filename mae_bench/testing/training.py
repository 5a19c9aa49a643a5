"""What is asked of everything that is trained: gradients, determinism, and a step that goes downhill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mae_bench.engine import loop
from mae_bench.engine.device import make_accelerator
from mae_bench.testing.contract import ContractError, require
from mae_bench.testing.samples import stage

RATES = (1e-3, 1e-4, 1e-5)
STEPS = 2
Groups = list[dict[str, Any]]


def seeded(work: Callable[[], Tensor], seed: int = 0) -> Tensor:
    """The answer of `work` when the generator starts at `seed`."""
    torch.manual_seed(seed)
    return work()


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, by name."""
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: value.detach().clone() for name, value in named}


@torch.no_grad()
def restore(module: nn.Module, state: Mapping[str, Tensor], keep: set[int]) -> None:
    """Put back what `state_of` copied, except the tensors whose id is in `keep`."""
    for name, value in chain(module.named_parameters(), module.named_buffers()):
        if id(value) not in keep and value.shape == state[name].shape:
            value.copy_(state[name])


def check_descent(module: nn.Module, groups: Callable[[], Groups], loss: Callable[[], Tensor], of: str) -> None:
    """One optimiser step lowers the loss of the same batch under the same random draws.

    Statistics, queues and momentum encoders are put back before the second look, so that nothing but the step shows.

    Raises:
        ContractError: it does not, at any of RATES.
    """
    module.train()
    before = state_of(module)
    told = []
    for rate in RATES:
        restore(module, before, set())
        chosen = groups()
        optimizer = loop.make_optimizer(chosen, stage(rate))
        first = seeded(loss)
        module.zero_grad()
        first.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        restore(module, before, {id(each) for group in chosen for each in group["params"]})
        second = seeded(loss)
        if bool(second < first):
            restore(module, before, set())
            return
        told.append(f"{float(first.detach()):.6g} to {float(second.detach()):.6g} at a rate of {rate:g}")
    raise ContractError(f"{of}: a step does not lower the loss: {'; '.join(told)}")


def check_scalar(losses: Any, of: str) -> Tensor:
    """The `loss` of named losses: one finite number that can be differentiated."""
    require(isinstance(losses, dict) and isinstance(losses.get("loss"), Tensor), f"{of}: gives no tensor named `loss`")
    loss: Tensor = losses["loss"]
    require(loss.shape == (), f"{of}: loss of shape {tuple(loss.shape)}, not a scalar")
    require(bool(torch.isfinite(loss)), f"{of}: loss is {float(loss.detach())}")
    require(loss.requires_grad, f"{of}: loss has no gradient")
    return loss


def check_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], of: str) -> None:
    """Two states are equal bit for bit."""
    require(set(first) == set(second), f"{of}: {sorted(set(first) ^ set(second))[:3]} are in one only")
    differing = [name for name, value in first.items() if not torch.equal(value, second[name])]
    require(not differing, f"{of}: {', '.join(differing[:3])} differ")


def run_loop(
    module: nn.Module, turns: Mapping[str, Groups], batch: Any, after_step: Callable[[float], None], folder: Path
) -> tuple[list[float], dict[str, Tensor]]:
    """Train for STEPS steps on one batch in the engine's loop. Returns losses and the state, on the CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    loop.clear(folder)
    plan = loop.Plan(
        name="contract",
        module=module,
        turns=turns,
        batch=lambda step: batch,
        stage=stage(steps=STEPS),
        steps=STEPS,
        seed=0,
        folder=folder,
        after_step=after_step,
    )
    setting = loop.Setting(make_accelerator())
    try:
        losses = loop.train(plan, setting).losses
    finally:
        loop.clear(folder)
        setting.accelerator.free_memory()
        module.to("cpu")
    return losses, state_of(module)
