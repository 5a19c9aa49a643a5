"""What a model says of prepared cases: volumes one by one, images in batches."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from mae_bench.engine.predict import predictions

SIZES = ((9, 12), (8, 8), (6, 20), (8, 8), (15, 8))


class Means(nn.Module):
    """Two outputs that tell images apart; remembers how many came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return torch.stack([x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))], dim=1)


@pytest.mark.parametrize("kind", ["classification", "survival"])
def test_images_go_through_in_batches_and_come_back_in_their_order(kind: str) -> None:
    """Of any size, since it is their middle that is looked at; the last batch is smaller."""
    rng = np.random.default_rng(0)
    images = {f"case {number}": rng.normal(size=(1, *size)).astype(np.float16) for number, size in enumerate(SIZES)}
    prepared: Any = SimpleNamespace(case=lambda name: SimpleNamespace(image=lambda: images[name]))
    recipe: Any = SimpleNamespace(roi=(8, 8), finetune=SimpleNamespace(batch=2))
    model, names = Means(), list(reversed(images))
    found = dict(predictions(model, prepared, names, SimpleNamespace(kind=kind), recipe, Accelerator(cpu=True)))  # type: ignore[arg-type]
    assert list(found) == names
    assert model.batches == [2, 2, 1]
    for name, image in images.items():
        top, left = (size // 2 - 4 for size in image.shape[1:])
        crop = np.zeros((8, 8), np.float32)
        middle = image[0, max(0, top) :, max(0, left) :][:8, :8].astype(np.float32)
        crop[: middle.shape[0], : middle.shape[1]] = middle
        expected = np.array([crop.mean(), crop.max()])
        if kind == "classification":
            expected = 1 / (1 + np.exp(-expected))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
