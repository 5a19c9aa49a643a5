"""RandAugment: deterministic, within the picture's limits, refused for what is no picture."""

from typing import Any

import numpy as np
import pytest

from mae_bench.data.crops import Batch
from mae_bench.engine.randaugment import RandAugmented
from mae_bench.errors import UsageError
from mae_bench.task import Intensity

PLANE = (1, 32, 32)
GREY = Intensity(kind="window", low=0, high=255, mean=0.5, std=0.25)


def crops(*shape: int) -> Any:
    return lambda step: Batch(
        ((np.random.default_rng(step).random(shape) - 0.5) / 0.25).astype(np.float16), None, None, None
    )


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    one, other = (RandAugmented(crops(6, 1, 32, 32), 9, GREY, 4, PLANE) for _ in range(2))
    first = one(2).images
    other(3)
    np.testing.assert_array_equal(other(2).images, first)
    assert first.dtype == np.float16
    assert np.abs(first).max() <= 2.01
    changed = [not np.allclose(a, b, atol=0.05) for a, b in zip(first, crops(6, 1, 32, 32)(2).images, strict=True)]
    assert sum(changed) >= 3
    assert not np.array_equal(RandAugmented(crops(6, 1, 32, 32), 9, GREY, 5, PLANE)(2).images, first)


def test_grey_in_three_channels_stays_grey() -> None:
    def repeated(step: int) -> Batch:
        batch = crops(4, 1, 32, 32)(step)
        return batch._replace(images=np.repeat(batch.images, 3, axis=1))

    images = RandAugmented(repeated, 9, GREY, 0, (3, 32, 32))(0).images
    np.testing.assert_array_equal(images[:, 0], images[:, 1])
    np.testing.assert_array_equal(images[:, :1], RandAugmented(crops(4, 1, 32, 32), 9, GREY, 0, PLANE)(0).images)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="limits of intensity"):
        RandAugmented(crops(2, 1, 8, 8), 9, Intensity(kind="zscore"), 0, (1, 8, 8))
    with pytest.raises(UsageError, match="planes"):
        RandAugmented(crops(2, 1, 8, 8, 8), 9, GREY, 0, (1, 8, 8, 8))
    with pytest.raises(UsageError, match="planes"):
        RandAugmented(crops(2, 2, 8, 8), 9, GREY, 0, (2, 8, 8))


def test_processes_share_what_one_draws() -> None:
    whole = RandAugmented(crops(6, 1, 32, 32), 9, GREY, 4, PLANE)(0).images
    batch = crops(6, 1, 32, 32)(0)
    for rank in (0, 1):
        part = RandAugmented(
            lambda step, rank=rank: batch._replace(images=batch.images[rank::2]), 9, GREY, 4, PLANE, rank, 2
        )
        np.testing.assert_array_equal(part(0).images, whole[rank::2])
