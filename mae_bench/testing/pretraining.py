"""Checks of pre-trainings, each on the smallest encoder of the registry that has what the method needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Source, Wants
from mae_bench.recipe import Recipe
from mae_bench.testing.contract import DoesNotApply, Subject, make_checks, require

if TYPE_CHECKING:
    from torch import Tensor

    from mae_bench.testing.samples import Place

RECIPE = {
    "name": "contract",
    "summary": "for the contract",
    "roi": (32, 32),
    "pretrain": {"epochs": 2, "batch": 2, "lr": 1e-3},
    "finetune": {"steps": 2, "batch": 2, "lr": 1e-3},
}


def _make(subject: Subject, place: Place, channels: int = 1, seed: int = 0) -> Any:
    """A new objective, drawn under `seed`. Raises DoesNotApply when there is nothing to train."""
    encoder = place.encoder(channels, seed)
    objective = subject.plugin.objective(subject.options, encoder)
    trains = getattr(subject.plugin, "trains", None)
    require(trains is (objective is not None), f"trains is {trains}, but objective gives {type(objective).__name__}")
    if objective is None:
        raise DoesNotApply("nothing to train")
    require(getattr(objective, "encoder", None) is encoder, "objective.encoder is not the encoder it was given")
    return objective


def _places(subject: Subject) -> list[Place]:
    from mae_bench.testing.samples import find_places

    return find_places(subject, lambda place: subject.plugin.objective(subject.options, place.encoder()))


def _losses(objective: Any, place: Place, turn: str, channels: int = 1) -> Callable[[], Tensor]:
    """The loss of a turn on the made-up batch."""
    from mae_bench.testing.samples import objective_inputs
    from mae_bench.testing.training import check_scalar

    batch, more = objective_inputs(objective.wants, place.roi, channels)
    of = f"{place.roi}, {channels} channels" + (f", turn {turn}" if turn else "")
    turns = {"turn": turn} if len(objective.wants.turns) > 1 else {}
    return lambda: check_scalar(objective(batch, **more, **turns), of)


def _groups(objective: Any, turn: str) -> list[dict[str, Any]]:
    from mae_bench.engine import loop

    if len(objective.wants.turns) == 1:
        return loop.decay_groups(objective, 0.05, {})
    groups: list[dict[str, Any]] = objective.groups(turn, 0.05)
    return groups


def start(subject: Subject) -> None:
    """`source` gives None, a file that is there, or says what to type; `extra_samples` gives a number."""
    try:
        source = subject.plugin.source(subject.options)
    except (InputError, UsageError) as error:
        require(bool(str(error)), "source refuses without a reason")
    else:
        good = source is None or (isinstance(source, Source) and source.path.is_file())
        require(good, f"source gives {source!r}, neither None nor a Source whose file is there")
    extra = subject.plugin.extra_samples(subject.options, Recipe(**RECIPE), 10)
    require(isinstance(extra, int) and extra >= 0, f"extra_samples gives {extra!r}")


def objective(subject: Subject) -> None:
    """An objective says what it wants; `after_step` can be called and `preview` gives pictures or None."""
    from mae_bench.testing.samples import images

    for place in _places(subject):
        made = _make(subject, place).eval()
        wants = made.wants
        require(isinstance(wants, Wants) and wants.views >= 1, f"wants is {wants!r}")
        require(bool(wants.turns), "wants.turns is empty: one turn is ('',)")
        if len(wants.turns) > 1:
            trained = {id(each) for turn in wants.turns for group in _groups(made, turn) for each in group["params"]}
            left = [name for name, each in made.named_parameters() if each.requires_grad and id(each) not in trained]
            require(not left, f"no turn trains {', '.join(left[:3])}")
        made.after_step(0.5)
        x = images(place.roi, batch=2)
        shown = made.preview(x)
        if shown is not None:
            shapes = [tuple(part.shape) for part in shown]
            require(shapes == [tuple(x.shape)] * 3, f"preview gives {shapes}, not three images like the batch")
            require(bool(shown[1].isnan().any()), "preview: the second image hides nothing: hidden voxels are NaN")


def loss(subject: Subject) -> None:
    """The loss is one finite number with a gradient, in 2-D and 3-D, with one channel and with three."""
    from mae_bench.testing.training import seeded

    for place in _places(subject):
        for channels in (1, 3):
            made = _make(subject, place, channels).train()
            for turn in made.wants.turns:
                seeded(_losses(made, place, turn, channels))


def state_dict(subject: Subject) -> None:
    """An objective that loads the state of another gives the loss of the other."""
    import torch

    from mae_bench.testing.training import seeded

    place = _places(subject)[0]
    first, second = _make(subject, place, seed=0).train(), _make(subject, place, seed=1).train()
    second.load_state_dict(first.state_dict())
    for turn in first.wants.turns:
        pair = [seeded(_losses(made, place, turn)) for made in (first, second)]
        require(torch.equal(*pair), f"losses {[float(each.detach()) for each in pair]} after loading a state")


def descent(subject: Subject) -> None:
    """One training step lowers the loss, in each turn."""
    from mae_bench.testing.training import check_descent

    place = _places(subject)[0]
    made = _make(subject, place)
    for turn in made.wants.turns:
        check_descent(made, lambda turn=turn: _groups(made, turn), _losses(made, place, turn), f"turn {turn!r}")  # type: ignore[misc]


def determinism(subject: Subject) -> None:
    """Two trainings under one seed in the engine's loop give the same losses and weights, and the encoder learns."""
    import torch

    from mae_bench.testing.samples import objective_inputs
    from mae_bench.testing.training import check_same, run_loop, state_of

    place = _places(subject)[0]
    runs = []
    for _ in range(2):
        made = _make(subject, place)
        before = state_of(made.encoder)
        batch, more = objective_inputs(made.wants, place.roi, 1)
        turns = {turn: _groups(made, turn) for turn in made.wants.turns}
        runs.append(run_loop(_as_module(made, more), turns, batch, made.after_step, subject.folder / "loop"))
    require(runs[0][0] == runs[1][0], f"losses {runs[0][0]} and then {runs[1][0]}")
    check_same(runs[0][1], runs[1][1], "after two trainings under one seed")
    moved = any(not torch.equal(value, before[name]) for name, value in state_of(made.encoder).items())
    require(moved, "training leaves the encoder as it was")


def _as_module(objective: Any, more: dict[str, Tensor]) -> Any:
    """The objective as the loop calls it: forward(batch), or forward(batch, turn)."""
    from torch import nn

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.objective = objective

        def forward(self, batch: Tensor, turn: str | None = None) -> Any:
            turns = {} if turn is None else {"turn": turn}
            moved = {name: value.to(batch.device) for name, value in more.items()}
            return self.objective(batch, **moved, **turns)

    return Wrapped()


CHECKS = make_checks([start, objective, loss, state_dict, descent, determinism])
