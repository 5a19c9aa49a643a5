"""Heads that remember: what they are handed, and that it does not depend on how cases are batched."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mae_bench.data.prepared import Prepared
from mae_bench.data.source import open_data
from mae_bench.engine.fit import fit
from mae_bench.engine.loop import Setting
from mae_bench.store import Store
from mae_bench_plugins.datasets.medmnist import MedMNIST, MedMNISTOptions
from tests.files.medmnist import arrays, write_medmnist

ROI = (20, 32)


class Corner(nn.Module):
    """An encoder that answers with the mean of the upper left corner and the mean of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Any:
        self.seen.append(len(x))
        assert x.shape[1:] == (1, *ROI)
        assert not self.training
        return SimpleNamespace(pooled=torch.stack([x[:, 0, :4, :4].mean((1, 2)), x.mean((1, 2, 3))], 1))


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Corner()

    def remember(self, features: Tensor, findings: Tensor) -> None:
        self.features, self.findings = features, findings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    root: Path = tmp_path_factory.mktemp("fit")
    write_medmnist(root / "data" / "organamnist.npz", arrays((28, 28), 10))
    options = MedMNISTOptions(check_md5=False)
    return open_data(MedMNIST(), options, Store(root / "store"), data=root / "data", demo=False, protocol=None).prepared


def remembered(prepared: Prepared, batch: int) -> tuple[Memory, dict[str, Any]]:
    model = Memory().train()
    spec: Any = SimpleNamespace(recipe=SimpleNamespace(roi=ROI, finetune=SimpleNamespace(batch=batch)))
    cases = [f"train_{number:06d}" for number in range(7)]
    return model, fit(model, spec, prepared, cases, Setting(Accelerator(cpu=True)))


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_features_and_findings_of_every_case_in_order(batch: int, prepared: Prepared) -> None:
    """Of the middle crop, with zeros where the image (28 x 28) is smaller than the crop (20 x 32)."""
    model, facts = remembered(prepared, batch)
    content = arrays((28, 28), 10)
    expected = []
    for image in content["train_images"][:7].astype(np.float16) / np.float16(255):
        crop = np.zeros(ROI)
        crop[:, :28] = image[4:24]
        expected.append([crop[:4, :4].mean(), crop.mean()])
    np.testing.assert_allclose(model.features.numpy(), expected, atol=2e-3)
    labels = content["train_labels"][:7, 0]
    np.testing.assert_array_equal(model.findings.numpy(), np.eye(11)[labels])
    assert sum(model.encoder.seen) == 7
    assert max(model.encoder.seen) == min(batch, 7)
    assert (facts["losses"], facts["selection"], facts["events"]) == ([], [], [])
    assert facts["seconds"] >= 0


def test_what_is_remembered_is_an_ordinary_tensor(prepared: Prepared) -> None:
    """A tensor of inference mode could not be overwritten by a state that is loaded later."""
    model, _ = remembered(prepared, 2)
    assert not model.features.is_inference()
    assert not model.features.requires_grad
    model.features.zero_()


def test_batches_change_nothing_but_rounding(prepared: Prepared) -> None:
    one, all_at_once = remembered(prepared, 1)[0], remembered(prepared, 7)[0]
    torch.testing.assert_close(one.features, all_at_once.features)
