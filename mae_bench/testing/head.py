"""Checks of heads: for every kind of task that they accept, on the smallest encoder that has what they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from mae_bench.task import Intensity, Preprocessing, Protocol, Task
from mae_bench.testing.card import TASKS
from mae_bench.testing.contract import ContractError, DoesNotApply, Subject, make_checks, require

if TYPE_CHECKING:
    from mae_bench.testing.samples import Place

PROTOCOL = Protocol(
    name="contract", summary="for the contract", preprocessing=Preprocessing(intensity=Intensity(kind="zscore"))
)


class _Case(NamedTuple):
    """A task on an encoder."""

    name: str
    task: Task
    place: Place

    def model(self, subject: Subject, seed: int = 0) -> Any:
        """A new model, drawn under `seed`."""
        encoder = self.place.encoder(seed=seed)
        made = subject.plugin.build(subject.options, encoder, self.task)
        kept = getattr(made, "encoder", None) is encoder
        require(kept, f"{self.name}: model.encoder is not the encoder it was given")
        return made


def _cases(subject: Subject) -> Iterator[_Case]:
    """Every kind of task that `needs` does not rule out, in 2-D and in 3-D; what `build` refuses is passed over.

    Raises:
        ContractError: all were refused; with the reason.
    """
    from mae_bench.testing.samples import find_place, tasks

    wanted = (subject.plugin.needs(subject.options) & TASKS) or TASKS
    reasons, found = [], False
    for axes in (2, 3):
        for name, task in tasks(axes).items():
            if task.kind not in wanted:
                continue
            try:
                place = find_place(
                    subject,
                    axes,
                    lambda place, task=task: subject.plugin.build(subject.options, place.encoder(), task),  # type: ignore[misc]
                )
            except DoesNotApply as error:
                reasons.append(f"{name}: {error}")
                continue
            found = True
            yield _Case(f"{axes}-D {name}", task, place)
    if not found:
        raise ContractError(f"accepts no task: {'; '.join(reasons)}")


def _trained(subject: Subject) -> Iterator[tuple[_Case, Any]]:
    """The models that are trained, each with its loss.

    Raises:
        DoesNotApply: there is none, because the head remembers instead.
    """
    from mae_bench.engine.inputs import Inputs
    from mae_bench.engine.losses import SupervisedLoss

    for case in _cases(subject):
        model = case.model(subject)
        if hasattr(model, "remember"):
            raise DoesNotApply("is not trained, but remembers features")
        yield case, SupervisedLoss(model, case.task, "dice_ce", Inputs(PROTOCOL, len(case.place.roi)))


def shapes(subject: Subject) -> None:
    """Logits are finite and of the shape that the task asks for."""
    import torch

    from mae_bench.testing.samples import images

    for case in _cases(subject):
        model = case.model(subject)
        _remember(model, case)
        with torch.no_grad():
            logits = model.eval()(images(case.place.roi, batch=2))
        expected = (2, case.task.outputs, *(case.place.roi if case.task.kind == "segmentation" else ()))
        require(tuple(logits.shape) == expected, f"{case.name}: logits are {tuple(logits.shape)}, not {expected}")
        require(bool(torch.isfinite(logits).all()), f"{case.name}: logits are not finite")


def state_dict(subject: Subject) -> None:
    """A fresh model that loads the state of a trained one answers as the other does."""
    import torch

    from mae_bench.testing.samples import images

    for case in _cases(subject):
        first, second = case.model(subject, seed=0), case.model(subject, seed=1)
        _remember(first, case)
        second.load_state_dict(first.state_dict())
        x = images(case.place.roi, batch=2)
        with torch.no_grad():
            same = torch.equal(first.eval()(x), second.eval()(x))
        require(same, f"{case.name}: answers differ after loading a state")


def gradients(subject: Subject) -> None:
    """The loss reaches every trainable parameter of the model."""
    from mae_bench.testing.backbone import check_gradients
    from mae_bench.testing.samples import labelled_batch
    from mae_bench.testing.training import check_scalar, seeded

    for case, module in _trained(subject):
        batch = labelled_batch(case.task, case.place.roi)
        module.train()
        seeded(lambda: check_scalar(module(batch), case.name)).backward()  # type: ignore[no-untyped-call]  # noqa: B023
        check_gradients(module, case.name)


def descent(subject: Subject) -> None:
    """One training step lowers the loss of each kind of task."""
    from mae_bench.engine import loop
    from mae_bench.testing.samples import labelled_batch
    from mae_bench.testing.training import check_descent, check_scalar

    for case, module in _trained(subject):
        batch = labelled_batch(case.task, case.place.roi)
        check_descent(
            module,
            lambda module=module: loop.decay_groups(module, 0.05, {}),  # type: ignore[misc]
            lambda module=module, batch=batch, case=case: check_scalar(module(batch), case.name),  # type: ignore[misc]
            case.name,
        )


def determinism(subject: Subject) -> None:
    """Two trainings under one seed in the engine's loop, with layer-wise rates, give the same losses and weights."""
    from mae_bench.engine import loop
    from mae_bench.engine.finetune import layer_scales
    from mae_bench.testing.samples import labelled_batch
    from mae_bench.testing.training import check_same, run_loop

    runs: dict[str, Any] = {}
    for _ in range(2):
        for case, module in _one_of_each_kind(_trained(subject)):
            groups = loop.decay_groups(module, 0.05, layer_scales(module.model, 0.75))
            batch = labelled_batch(case.task, case.place.roi)
            losses, state = run_loop(module, {"": groups}, batch, lambda done: None, subject.folder / "loop")
            before = runs.setdefault(case.name, (losses, state))
            require(losses == before[0], f"{case.name}: losses {before[0]} and then {losses}")
            check_same(before[1], state, f"{case.name}: after two trainings under one seed")


def _one_of_each_kind(cases: Iterator[tuple[_Case, Any]]) -> list[tuple[_Case, Any]]:
    """The first case of each kind of task: the loop is the same for the others."""
    return list({case.task.kind: (case, module) for case, module in reversed(list(cases))}.values())


def remembers(subject: Subject) -> None:
    """A head that remembers gives the cases it was handed scores that tell their findings apart."""
    import torch

    from mae_bench.testing.samples import images

    for case in _cases(subject):
        model = case.model(subject)
        if not hasattr(model, "remember"):
            raise DoesNotApply("is trained, and remembers nothing")
        findings = _remember(model, case)
        with torch.no_grad():
            logits = model.eval()(images(case.place.roi))
        for column in range(logits.shape[1]):
            present = findings[:, column] > 0
            worst, best = logits[present, column].min(), logits[~present, column].max()
            require(bool(worst > best), f"{case.name}: a remembered case with a finding scores below one without")


def _remember(model: Any, case: _Case) -> Any:
    """Hand the model the features and findings of the made-up batch, if it remembers."""
    import torch

    from mae_bench.testing.samples import labelled_batch

    if not hasattr(model, "remember"):
        return None
    batch: Any = labelled_batch(case.task, case.place.roi)
    with torch.inference_mode():
        model.remember(model.eval().encoder(batch.images).pooled, batch.findings)
    return batch.findings


CHECKS = make_checks([shapes, state_dict, gradients, descent, determinism, remembers])
