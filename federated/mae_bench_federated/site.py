"""One site's part of a round: its cases, its scanner, its own state on its own disk, and the steps in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from mae_bench.engine import loop, rounds
from mae_bench.engine.progress import Silent
from mae_bench.errors import InputError
from mae_bench.spec import Federation
from mae_bench_federated import privacy, weights
from mae_bench_federated.messages import Malformed, Order, Report, check_arrays
from mae_bench_federated.partition import Sites, divide, kinds_of
from mae_bench_federated.shift import shift_of, shifted
from mae_bench_federated.weights import Arrays

if TYPE_CHECKING:
    # A hospital's process is new for each message, and what fine-tuning imports takes as long as all the rest.
    from mae_bench.engine import finetune, pretrain

    Job: TypeAlias = pretrain.Job | finetune.Job


@dataclass
class Workplace:
    """A stage and the sites that train it in this process, one after the other, in one module.

    cases: of each site. secret: noise comes from the operating system; else from the seed, so that a simulation can
    be repeated. private: what a site's own part of the module is before its first round.
    """

    job: Job
    cases: Sites
    secret: bool = False
    private: Mapping[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Keep the module's start before anyone trains in it."""
        module = self.job.module
        own = weights.statistics_names(module) if self.federation.norms == "local" else []
        state = module.state_dict()
        self.private = weights.take_private(module) | {name: state[name].detach().cpu().clone() for name in own}

    @classmethod
    def simulated(cls, job: Job) -> Workplace:
        """Divide the job's cases as the federation says."""
        return cls(job, sites_of(job, job.cases))

    @property
    def federation(self) -> Federation:
        """How the sites share the training."""
        assert self.job.spec.federation is not None
        return self.job.spec.federation

    def folder(self, site: int) -> Path:
        """Where a site keeps its own state."""
        return self.job.folder / "sites" / str(site)

    def plan(self, site: int) -> loop.Plan:
        """The stage on the site's cases, as its scanner sees them."""
        seed = seed_of(self.job.spec.pretrain_seed if self.job.stage == "pretrain" else self.job.spec.seed, site)
        plan = self.job.plan(self.cases[site], self.folder(site), seed)
        return replace(plan, batch=shifted(plan.batch, shift_of(self.federation, site), len(self.job.spec.recipe.roi)))

    def train(self, site: int, order: Order, arrays: Arrays) -> Report:
        """Train one site for one round.

        Raises:
            Malformed: the order does not fit this stage.
            RunFailed: the losses were not finite.
            Interrupted: a signal came.
        """
        self._check(order, arrays)
        module, federation = self.job.module, self.federation
        before = {name: value.astype(np.float32) for name, value in arrays.items()} if federation.half else arrays
        taken = before
        if federation.norms == "local":
            # The site's own statistics come back with its state; the mean of all is for the common model.
            taken = {name: value for name, value in before.items() if name in set(weights.learned_names(module))}
        # The module was another site's a moment ago.
        module.load_state_dict(self.private, strict=False)
        plan = replace(self.plan(site), check=None, state={})
        part = rounds.Round(order.start, order.stop, weights.tensors(taken), keep=federation.optimizer == "keep")
        with proximal(module, taken, order.mu, plan.stage.accumulate):
            history = rounds.train_round(plan, replace(self.job.setting, reporter=Silent()), part)
        after: Arrays = weights.take(module)
        if federation.privacy == "local":
            after = privacy.hide(after, before, federation, self.noise(site, order.number))
        if federation.half:
            after = weights.narrow({name: after[name] - before[name] for name in after})
        return Report(after, len(self.cases[site]), history.losses)

    def noise(self, site: int, number: int) -> np.random.Generator:
        """Generator of a site's noise in a round."""
        return np.random.default_rng(None if self.secret else [*draws_of(self.job), 2, site, number])

    def _check(self, order: Order, arrays: Arrays) -> None:
        job = self.job
        if order.stage != job.stage:
            raise Malformed(f"stage {order.stage!r} was not agreed on")
        number, last = order.number, min(self.federation.rounds, job.steps)
        if not 1 <= number <= last or (order.start, order.stop) != rounds.bounds(number, last, job.steps):
            raise Malformed(f"steps {order.start} to {order.stop} are not those of round {number} of {last}")
        agreed = self.federation.mu if self.federation.strategy == "fedprox" else 0.0
        if order.mu != agreed:
            raise Malformed(f"a proximal term of {order.mu} was not agreed on")
        state = job.module.state_dict()
        like = {name: state[name] for name in weights.federated_names(job.module)}
        check_arrays(arrays, like, half=self.federation.half)


def draws_of(job: Job) -> list[int]:
    """What makes the draws of a simulation's server and sites those of this stage and this seed."""
    federation, pretraining = job.spec.federation, job.stage == "pretrain"
    assert federation is not None
    return [federation.partition_seed, int(pretraining), job.spec.pretrain_seed if pretraining else job.spec.seed]


def seed_of(seed: int, site: int) -> int:
    """Seed of a site's batches and random steps; the first site's is that of central training."""
    return seed if site == 0 else int(np.random.SeedSequence([seed, site]).generate_state(1)[0] >> 1)


def sites_of(job: Job, cases: Sequence[str]) -> Sites:
    """The given cases of each site. A site has the same subjects in all stages, labelled or not.

    Raises:
        InputError: a site would have no training case, or the data know no sites.
    """
    federation = job.spec.federation
    assert federation is not None
    train = list(getattr(job, "train", ()) or job.cases)
    selection = [case for case in getattr(job, "selection", ()) if case not in set(train)]
    subject = {case: job.prepared.facts[case].subject for case in (*train, *selection)}
    mixed = federation.partition == "dirichlet"
    kind: Mapping[str, Any] = kinds_of(job.prepared, train, job.task, selection) if mixed else {}
    sides = [divide(train, subject, kind, federation)]
    if selection:
        known = {subject[case]: number for number, own in enumerate(sides[0]) for case in own}
        sides.append(divide(selection, subject, kind, federation, known=known))
    site = {case: number for side in sides for number, own in enumerate(side) for case in own}
    if lost := [case for case in cases if case not in site]:
        raise InputError(f"{len(lost)} cases, such as {lost[0]}, are no training or selection cases")
    return tuple(tuple(case for case in cases if site[case] == number) for number in range(federation.sites))


@contextmanager
def proximal(module: nn.Module, arrays: Arrays, mu: float, parts: int) -> Iterator[None]:
    """Add the gradient of mu / 2 * |w - w_server|^2 while the block runs (Li et al. 2020, equation 2).

    parts: backward passes per step, among which it is shared out.
    """

    def pull(parameter: nn.Parameter, name: str) -> Callable[[Tensor], Tensor]:
        def change(gradient: Tensor) -> Tensor:
            # Only now is it certain on which device the module trains; it is moved there once.
            starts[name] = starts[name].to(gradient.device)
            return gradient + mu / parts * (parameter.detach() - starts[name])

        return change

    starts = weights.tensors(arrays) if mu else {}
    handles = [
        parameter.register_hook(pull(parameter, name))  # type: ignore[no-untyped-call]
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and name in starts
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
