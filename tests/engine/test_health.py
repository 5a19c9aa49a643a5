"""Collapse and blank reconstructions are noticed; figures against closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.engine.health import effective_rank, reconstruction_gain, relative_std, verdict
from mae_bench.tokens import patchify, unpatchify


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_of_equal_directions_is_their_number(rank: int) -> None:
    basis = torch.linalg.qr(torch.randn(12, rank, generator=torch.Generator().manual_seed(0))).Q
    spread = torch.cat([torch.eye(rank), -torch.eye(rank)])
    assert effective_rank(spread @ basis.T + 7) == pytest.approx(rank, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_effective_rank_is_between_its_bounds(seed: int) -> None:
    features = torch.from_numpy(np.random.default_rng(seed).normal(size=(8, 20)))
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    shares = values / values.sum()
    expected = np.exp(-(shares[shares > 1e-12] * np.log(shares[shares > 1e-12])).sum())
    assert effective_rank(features) == pytest.approx(expected, rel=1e-6)
    assert 1 <= effective_rank(features) <= 7


def test_equal_features_are_called_a_collapse() -> None:
    features = torch.full((8, 4), 2.5)
    assert effective_rank(features) == 0
    assert relative_std(features) == 0
    assert "collapsed" in verdict({"feature_std": 0.0, "effective_rank": 0.0})
    assert verdict({"feature_std": 0.3, "effective_rank": 9.0}) == ""


def test_gain_is_nothing_for_patch_means_and_one_for_the_truth() -> None:
    torch.manual_seed(0)
    image, patch, grid = torch.randn(2, 1, 8, 8), (4, 4), (2, 2)
    means = unpatchify(patchify(image, patch).mean(-1, keepdim=True).expand(2, 4, 16), patch, grid)
    masked = image.clone()
    masked[:, :, :4] = torch.nan
    assert reconstruction_gain(image, masked, image, patch) == pytest.approx(1)
    assert reconstruction_gain(image, masked, means, patch) == pytest.approx(0, abs=1e-6)
    half = (image + means) / 2
    assert reconstruction_gain(image, masked, half, patch) == pytest.approx(0.75, abs=1e-5)
    wrong_where_seen = torch.where(masked.isnan(), image, 99.0)
    assert reconstruction_gain(image, masked, wrong_where_seen, patch) == pytest.approx(1)
    assert "patch's mean" in verdict({"feature_std": 0.3, "effective_rank": 9.0, "reconstruction_gain": -0.1})
