"""The log-risk, and the partial likelihood that it learns from, against statsmodels and the formula written out."""

import numpy as np
import pytest
import torch
from statsmodels.duration.hazard_regression import PHReg
from torch import Tensor

from mae_bench.engine.losses import cox_loss
from mae_bench.task import Task
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.heads.cox import Cox, CoxOptions
from mae_bench_plugins.heads.cox.model import CoxModel

SURVIVAL = Task(kind="survival", channels=("T1",), findings=("time", "event"))


def model(roi: tuple[int, ...] = (8, 16, 24)) -> CoxModel:
    torch.manual_seed(0)
    encoder = VisionTransformerEncoder(1, roi, (8,) * len(roi), 24, 2, 3)
    made = Cox().build(CoxOptions(), encoder, SURVIVAL)
    assert isinstance(made, CoxModel)
    return made


@torch.no_grad()
def test_the_risk_is_a_linear_map_of_the_pooled_feature() -> None:
    for roi in ((8, 16, 24), (16, 24)):
        made = model(roi)
        made.layer.weight.normal_()
        x = torch.randn(3, 1, *roi)
        assert made(x).shape == (3, SURVIVAL.outputs)
        torch.testing.assert_close(made(x), made.encoder(x).pooled @ made.layer.weight.T, atol=1e-5, rtol=1e-5)


def test_it_starts_with_equal_risks_and_trains_everything() -> None:
    made = model()
    risk = made(torch.randn(4, 1, 8, 16, 24))[:, 0]
    assert risk.detach().abs().max() < 1e-2
    cox_loss(risk, torch.tensor([4.0, 2.0, 3.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 1.0])).backward()
    for parameter in made.parameters():
        assert parameter.requires_grad
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    assert made.layer.weight.grad is not None
    assert made.layer.weight.grad.abs().max() > 0


def test_words() -> None:
    assert Cox().needs(CoxOptions()) == {"pooled", "survival"}
    assert Cox().provides(CoxOptions()) == frozenset()


# --- the loss ---------------------------------------------------------------------------------------------------------


def draw(seed: int, tied: bool) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    time = rng.integers(1, 8, 24) if tied else rng.permutation(24) + 1
    return (
        torch.from_numpy(rng.normal(size=24)),
        torch.from_numpy(time.astype(float)),
        torch.from_numpy((rng.random(24) < 0.6).astype(float)),
    )


def by_hand(risk: Tensor, time: Tensor, event: Tensor) -> float:
    """Breslow: for every event, log of the sum of exp(risk) over those still there, less its own risk."""
    terms = []
    for one in range(len(risk)):
        if event[one]:
            there = [float(torch.exp(risk[other])) for other in range(len(risk)) if time[other] >= time[one]]
            terms.append(float(np.log(sum(there)) - float(risk[one])))
    return float(np.mean(terms)) if terms else 0.0


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_the_partial_likelihood(seed: int, tied: bool) -> None:
    risk, time, event = draw(seed, tied)
    found = float(cox_loss(risk, time, event))
    assert found == pytest.approx(by_hand(risk, time, event), rel=1e-9)
    peer = PHReg(time.numpy(), risk.numpy()[:, None], status=event.numpy(), ties="breslow")
    assert found * float(event.sum()) == pytest.approx(-peer.loglike(np.ones(1)), rel=1e-9)


def test_two_patients() -> None:
    """The first dies while both are there: log(e^0 + e^1) - 0."""
    loss = cox_loss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]))
    assert float(loss) == pytest.approx(np.log(1 + np.e))


def test_without_an_event_there_is_nothing_to_learn() -> None:
    risk = torch.randn(5, requires_grad=True)
    loss = cox_loss(risk, torch.rand(5), torch.zeros(5))
    loss.backward()
    assert float(loss.detach()) == 0
    assert risk.grad is not None
    assert not risk.grad.any()


def test_a_constant_does_not_matter_and_large_risks_do_not_overflow() -> None:
    risk, time, event = draw(0, True)
    assert float(cox_loss(risk + 1e4, time, event)) == pytest.approx(float(cox_loss(risk, time, event)), rel=1e-6)
    huge = (risk * 1e4).float().requires_grad_()
    loss = cox_loss(huge, time.float(), event.float())
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert huge.grad is not None
    assert torch.isfinite(huge.grad).all()


def test_its_minimum_is_the_estimate_of_statsmodels() -> None:
    """One covariate: descending the loss over its coefficient gives the fitted hazard ratio."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=200)
    time = rng.exponential(np.exp(-0.8 * x)).round(1) + 0.1
    event = (rng.random(200) < 0.7).astype(float)
    coefficient = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([coefficient], line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cox_loss(torch.from_numpy(x) * coefficient, torch.from_numpy(time), torch.from_numpy(event))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)
    fitted = PHReg(time, x[:, None], status=event, ties="breslow").fit(disp=0).params[0]
    assert float(coefficient.detach()) == pytest.approx(fitted, abs=1e-4)
