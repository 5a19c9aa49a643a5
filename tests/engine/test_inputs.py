"""From a stored crop to network input."""

from typing import Any

import numpy as np
import pytest
import torch

from mae_bench.data.crops import Batch
from mae_bench.engine.inputs import Inputs, crop_zscore
from mae_bench.task import Intensity, Preprocessing, Protocol


def rules(intensity: Intensity, **fields: Any) -> Protocol:
    return Protocol(name="x", summary="x", preprocessing=Preprocessing(intensity=intensity), **fields)


def batch_of(*shape: int, gain: bool = False) -> Any:
    rng = np.random.default_rng(0)
    images = np.where(rng.random(shape) < 0.3, 0, rng.normal(3, 2, shape)).astype(np.float16)
    gains = rng.uniform(-1, 2, (*shape[: len(shape) - 4], 2)).astype(np.float32) if gain else None
    return Batch(torch.from_numpy(images), None, None, None if gains is None else torch.from_numpy(gains))  # type: ignore[arg-type]


@pytest.mark.parametrize("lead", [(3,), (3, 2)])
def test_gains_apply_to_each_view_and_leave_air_alone(lead: tuple[int, ...]) -> None:
    batch = batch_of(*lead, 2, 4, 5, 6, gain=True)
    found = Inputs(rules(Intensity(kind="zscore")), 3)(batch)
    images = batch.images.numpy().astype(np.float64)
    scale, shift = (batch.gain.numpy()[..., part].reshape(*lead, 1, 1, 1, 1) for part in (0, 1))
    np.testing.assert_allclose(found, np.where(images != 0, images * scale + shift, 0), atol=1e-5)
    assert found.dtype == torch.float32


def test_where_zero_is_no_air_it_changes_too() -> None:
    batch = batch_of(3, 1, 4, 5, 6, gain=True)
    found = Inputs(rules(Intensity(kind="window", low=0, high=255, mean=0.5)), 3)(batch)
    changed = batch.gain[:, 1].reshape(3, 1, 1, 1, 1).expand_as(found)[batch.images == 0]
    torch.testing.assert_close(found[batch.images == 0], changed)


def test_crop_zscore_is_over_the_non_zero_voxels_of_each_channel() -> None:
    batch = batch_of(3, 2, 4, 5, 6)
    found = Inputs(rules(Intensity(kind="zscore"), crop_zscore=True), 3)(batch)
    for before, after in zip(batch.images.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
        inside = before != 0
        values = before[inside].astype(np.float64)
        assert (after[~inside] == 0).all()
        np.testing.assert_allclose(after[inside], (values - values.mean()) / values.std(), atol=1e-4)


def test_an_empty_or_constant_channel_stays_finite() -> None:
    images = torch.zeros(1, 2, 3, 3, 3)
    images[:, 1] = 5
    assert (crop_zscore(images, 3) == 0).all()
