"""Nearest neighbours, against scikit-learn's with the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from mae_bench.engine.onednn import use_onednn
from mae_bench.engine.weights import save_weights
from mae_bench.task import Task
from mae_bench_plugins.backbones.vit.model import VisionTransformerEncoder
from mae_bench_plugins.heads.knn import KNN, KNNOptions
from mae_bench_plugins.heads.knn.model import KNNModel

FINDINGS = Task(kind="classification", channels=("x-ray",), findings=("mass", "nodule", "edema"))


def model(k: int = 5, temperature: float = 0.07, task: Task = FINDINGS, dim: int = 24) -> KNNModel:
    torch.manual_seed(0)
    encoder = VisionTransformerEncoder(1, (16, 24), (8, 8), dim, 2, 3)
    made = KNN().build(KNNOptions(k=k, temperature=temperature), encoder, task)
    assert isinstance(made, KNNModel)
    return made.eval()


def memory(count: int = 40, dim: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, dim)).astype(np.float32)
    findings = (rng.random((count, 3)) < 0.4).astype(np.float32)
    return torch.from_numpy(features), torch.from_numpy(findings)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@torch.no_grad()
def test_shares_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    made, (features, findings) = model(k, temperature), memory()
    made.remember(features, findings)
    x = torch.randn(6, 1, 16, 24)
    found = made(x).sigmoid().numpy()
    queries = made.encoder(x).pooled.numpy()
    peer = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    )
    for column in range(3):
        peer.fit(features.numpy(), findings[:, column].numpy())
        np.testing.assert_allclose(found[:, column], peer.predict_proba(queries)[:, 1], atol=2e-5)


@torch.no_grad()
def test_fewer_cases_than_neighbours_are_all_neighbours() -> None:
    features, findings = memory(4)
    answers = []
    for k in (4, 1000):
        made = model(k)
        made.remember(features, findings)
        answers.append(made(torch.ones(1, 1, 16, 24)))
    torch.testing.assert_close(*answers)


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=10)
@torch.no_grad()
def test_only_directions_and_the_set_of_cases_count(scale: float, seed: int) -> None:
    """Neither the length of features nor the order in which cases are remembered changes an answer."""
    features, findings = memory(seed=seed)
    x = torch.randn(3, 1, 16, 24)
    made, other = model(), model()
    made.remember(features, findings)
    order = torch.randperm(len(features))
    other.remember(features[order] * scale, findings[order])
    torch.testing.assert_close(made(x), other(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("temperature", [0.01, 0.07, 100.0])
@torch.no_grad()
def test_logits_are_finite(temperature: float) -> None:
    """Also when all neighbours agree, a feature is zero, or weights differ by e^200."""
    made = model(3, temperature)
    features, findings = memory(30)
    features[0] = 0
    findings[:, 0], findings[:, 1] = 0, 1
    x = torch.randn(4, 1, 16, 24)
    features[1:5] = made.encoder(x).pooled
    made.remember(features, findings)
    logits = made(x)
    assert torch.isfinite(logits).all()
    assert (logits[:, 0] < -13).all()
    assert (logits[:, 1] > 13).all()


@torch.no_grad()
def test_a_remembered_image_is_its_own_nearest_neighbour() -> None:
    made = model(1)
    x = torch.randn(8, 1, 16, 24)
    findings = torch.eye(8)[:, :3]
    made.remember(made.encoder(x).pooled, findings)
    assert torch.equal((made(x) > 0).float(), findings)


@torch.no_grad()
def test_the_memory_survives_the_file_it_is_saved_in(tmp_path: Path) -> None:
    """A new model of the same cell does not know how many cases there were."""
    made = model()
    made.remember(*memory())
    save_weights(made, tmp_path / "model.safetensors")
    fresh = model()
    fresh.encoder.patch_embed.weight.normal_()
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = torch.randn(2, 1, 16, 24)
    assert torch.equal(made(x), fresh(x))
    torch.testing.assert_close(use_onednn(fresh)(x), made(x), atol=1e-4, rtol=1e-4)
    fewer = model()
    fewer.remember(*memory(7))
    fresh.load_state_dict(fewer.state_dict())
    assert torch.equal(fresh.features, fewer.features)


def test_a_memory_of_another_model_is_refused() -> None:
    made, other = model(), model(task=FINDINGS.model_copy(update={"findings": ("mass",)}))
    made.remember(*memory())
    with pytest.raises(RuntimeError, match="size mismatch for findings"):
        other.load_state_dict(made.state_dict())
    partial: dict[str, Any] = {name: value for name, value in made.state_dict().items() if name != "features"}
    with pytest.raises(RuntimeError, match=r"Missing key.*features"):
        model().load_state_dict(partial)


def test_nothing_remembered_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="nothing is remembered"):
        model()(torch.zeros(1, 1, 16, 24))


def test_nothing_is_trained() -> None:
    assert not any(parameter.requires_grad for parameter in model().parameters())


@torch.no_grad()
def test_half_precision_changes_no_neighbour() -> None:
    """Under autocast the encoder runs in bfloat16, the comparison does not."""
    made = model(1)
    x = torch.randn(16, 1, 16, 24)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = made.encoder(x).pooled.float()
        made.remember(pooled, torch.eye(16)[:, :3])
        logits = made(x)
    assert logits.dtype == torch.float32
    assert torch.equal(logits > 0, torch.eye(16)[:, :3] > 0)


def test_words_and_bounds() -> None:
    assert KNN().needs(KNNOptions()) == {"pooled", "classification"}
    assert KNN().provides(KNNOptions()) == frozenset()
    for wrong in ({"k": 0}, {"temperature": 0}, {"neighbours": 3}):
        with pytest.raises(ValidationError):
            KNNOptions(**wrong)  # type: ignore[arg-type]
