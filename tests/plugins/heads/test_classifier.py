"""The classifier: a linear layer on the pooled feature, everything trained."""

from typing import Any

import pytest
import torch

from mae_bench.task import Task
from mae_bench_plugins.backbones.densenet.model import DenseNetEncoder
from mae_bench_plugins.backbones.resnet.model import ResNetEncoder
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.heads.classifier import Classifier, ClassifierOptions
from mae_bench_plugins.heads.classifier.model import ClassifierModel

FINDINGS = Task(kind="classification", channels=("x-ray",), findings=("mass", "nodule", "edema"))


def model(roi: tuple[int, ...] = (16, 24)) -> ClassifierModel:
    torch.manual_seed(0)
    encoder = VisionTransformerEncoder(1, roi, (8,) * len(roi), 24, 2, 3)
    made = Classifier().build(ClassifierOptions(), encoder, FINDINGS)
    assert isinstance(made, ClassifierModel)
    return made


@torch.no_grad()
def test_logits_are_a_linear_map_of_the_class_token() -> None:
    for roi in ((16, 24), (8, 16, 24)):
        made = model(roi)
        made.layer.weight.normal_()
        made.layer.bias.normal_()
        x = torch.randn(2, 1, *roi)
        expected = made.encoder(x).pooled @ made.layer.weight.T + made.layer.bias
        assert made(x).shape == (2, 3)
        torch.testing.assert_close(made(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_starts_undecided() -> None:
    """He et al. 2022 fine-tune from near-zero logits."""
    assert model()(torch.randn(4, 1, 16, 24)).abs().max() < 1e-2


def test_everything_is_trained() -> None:
    made = model()
    assert all(parameter.requires_grad for parameter in made.parameters())
    made(torch.randn(2, 1, 16, 24)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())
    assert made.encoder.patch_embed.weight.grad.abs().max() > 0


def test_words() -> None:
    assert Classifier().needs(ClassifierOptions()) == {"pooled", "classification"}
    assert Classifier().provides(ClassifierOptions()) == frozenset()


@pytest.mark.parametrize("network", ["resnet", "densenet"])
@pytest.mark.parametrize("roi", [(64, 32), (32, 32, 64)])
def test_convolutional_encoders_are_trained_with_their_statistics(network: str, roi: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder: Any = ResNetEncoder(18, 2, roi, 0.0) if network == "resnet" else DenseNetEncoder(2, roi)
    made = Classifier().build(ClassifierOptions(), encoder, FINDINGS).train()
    x = torch.randn(2, 2, *roi)
    before = [value.clone() for name, value in encoder.named_buffers() if name.endswith("running_mean")]
    logits = made(x)
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())
    after = [value for name, value in encoder.named_buffers() if name.endswith("running_mean")]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
