"""The probe: one linear layer learns, the encoder does not."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mae_bench.data import geometry
from mae_bench.task import Region, Task
from mae_bench_plugins.backbones.densenet.model import DenseNetEncoder
from mae_bench_plugins.backbones.resnet.model import ResNetEncoder
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.heads.linear import Linear, LinearOptions
from mae_bench_plugins.heads.linear.model import LinearProbe, Standardise

ORGANS = Task(
    kind="segmentation", channels=("CT",), regions=tuple(Region(name=f"r{v}", labels=(v,), paint=v) for v in (1, 2))
)
FINDINGS = Task(kind="classification", channels=("CT",), findings=("mass", "nodule", "edema", "hernia"))
CASES = [((8, 12, 16), (4, 2, 8)), ((16, 24), (4, 8))]


def probe(task: Task, roi: tuple[int, ...] = (8, 12, 16), patch: tuple[int, ...] = (4, 2, 8)) -> LinearProbe:
    torch.manual_seed(0)
    encoder = VisionTransformerEncoder(1, roi, patch, 24, 2, 3, drop_path=0.5)
    made = Linear().build(LinearOptions(), encoder, task)
    assert isinstance(made, LinearProbe)
    return made


def learn(model: LinearProbe, x: Tensor, steps: int = 3) -> None:
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize(("roi", "patch"), CASES)
@torch.no_grad()
def test_one_layer_serves_all_places_and_is_interpolated(roi: tuple[int, ...], patch: tuple[int, ...]) -> None:
    model = probe(ORGANS, roi, patch).eval()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 1, *roi)
    scaled = torch.einsum("bd...->b...d", model.encoder(x).map) - model.norm.running_mean
    coarse = scaled / (model.norm.running_var + 1e-5).sqrt() @ model.layer.weight.T + model.layer.bias
    expected = geometry.resample(coarse.movedim(-1, 1).numpy(), tuple(1 / size for size in patch), roi, edges=True)
    np.testing.assert_allclose(model(x), expected, atol=1e-4)


@torch.no_grad()
def test_a_finding_is_read_from_the_pooled_feature() -> None:
    model = probe(FINDINGS).eval()
    x = torch.randn(3, 1, 8, 12, 16)
    expected = model.encoder(x).pooled / (1 + 1e-5) ** 0.5 @ model.layer.weight.T + model.layer.bias
    assert model(x).shape == (3, 4)
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", [ORGANS, FINDINGS])
def test_features_are_standardised_while_training(task: Task) -> None:
    """The layer sees features of mean 0 and variance 1, whatever the method's scale."""
    model = probe(task).train()
    seen: list[Tensor] = []
    model.layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model(100 * torch.randn(8, 1, 8, 12, 16))
    flat = seen[0].reshape(-1, 24)
    torch.testing.assert_close(flat.mean(0), torch.zeros(24), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.var(0, unbiased=False), torch.ones(24), atol=5e-2, rtol=0)


@pytest.mark.parametrize("task", [ORGANS, FINDINGS])
def test_the_encoder_is_frozen(task: Task) -> None:
    model, x = probe(task), torch.randn(4, 1, 8, 12, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learn(model, x)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        "layer.weight", "layer.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked",
    }  # fmt: skip
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["layer.weight", "layer.bias"]
    assert not any(p.grad is not None for p in model.encoder.parameters())


def test_the_encoder_stays_in_evaluation_mode() -> None:
    """Otherwise its stochastic depth would blur the features that are probed."""
    model, x = probe(FINDINGS).train(), torch.randn(2, 1, 8, 12, 16)
    assert model.training
    assert model.norm.training
    assert not any(module.training for module in model.encoder.modules())
    with torch.no_grad():
        assert torch.equal(model.encoder(x).pooled, model.encoder(x).pooled)
    assert model.train() is model
    assert not model.eval().norm.training


def test_words() -> None:
    assert Linear().needs(LinearOptions()) == {"pooled", "map"}
    assert Linear().provides(LinearOptions()) == frozenset()


def test_a_batch_of_one_value_is_standardised_by_what_was_seen_before() -> None:
    """A single image has no spread: training does not stop, and the statistics stay."""
    norm = Standardise(4, affine=False)
    norm(torch.randn(16, 4) * 3 + 2)
    before = norm.running_mean.clone()
    found = norm.train()(torch.ones(1, 4))
    torch.testing.assert_close(found, (1 - before) / (norm.running_var + norm.eps).sqrt().unsqueeze(0))
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("network", ["resnet", "densenet"])
@pytest.mark.parametrize("task", [ORGANS, FINDINGS], ids=["organs", "findings"])
@pytest.mark.parametrize("roi", [(32, 32), (64, 32, 32)])
def test_convolutional_encoders_are_probed_even_one_place_at_a_time(
    network: str, task: Task, roi: tuple[int, ...]
) -> None:
    """Frozen, they normalise by their own statistics, which stay: one place of one image is enough to train on."""
    torch.manual_seed(0)
    encoder: Any = ResNetEncoder(18, 1, roi, 0.0) if network == "resnet" else DenseNetEncoder(1, roi)
    made = Linear().build(LinearOptions(), encoder, task)
    assert isinstance(made, LinearProbe)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    layer = made.layer.weight.clone()
    learn(made, torch.randn(1, 1, *roi))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not torch.equal(made.layer.weight, layer)
    logits = made.eval()(torch.randn(2, 1, *roi))
    assert logits.shape == (2, task.outputs, *(roi if task is ORGANS else ()))
    assert torch.isfinite(logits).all()
