"""Each strategy against its formula, written out with numpy, over two rounds of random weights."""

import numpy as np
import pytest
import torch

from mae_bench.spec import Federation
from mae_bench_federated.grids.base import be_server
from mae_bench_federated.messages import Report
from mae_bench_federated.strategies import Combination

be_server()
SHAPES = {"a": (3, 4), "b": (5,), "c": ()}
CASES = [3, 10, 1, 6, 4]


def random_weights(seed):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in SHAPES.items()}


def reports_of(round_number):
    return [Report(random_weights([round_number, site]), cases, [0.5]) for site, cases in enumerate(CASES)]


def run(federation, rounds=2, statistics=()):
    """Weights after each round."""
    combination, weights, found = Combination(federation, statistics), random_weights(99), []
    for number in range(1, rounds + 1):
        combination.configure(number, weights, range(len(CASES)))
        weights = combination.combine(number, reports_of(number), weights)
        assert all(value.dtype == np.float32 for value in weights.values())
        found.append(weights)
    return found


def stacked(number, name):
    return np.stack([report.arrays[name].astype(float) for report in reports_of(number)])


def mean(number, name):
    return np.tensordot(np.array(CASES) / sum(CASES), stacked(number, name), 1)


def median(number, name):
    return np.sort(stacked(number, name), axis=0)[2]


def trimmed(number, name):
    return np.sort(stacked(number, name), axis=0)[1:-1].mean(0)


def nearest(number, name):
    """Krum (Blanchard et al. 2017, section 4), f = 1: closest to its n - f - 2 nearest."""
    flat = np.stack(
        [np.concatenate([report.arrays[key].ravel() for key in SHAPES]) for report in reports_of(number)]
    ).astype(float)
    gaps = ((flat[:, None] - flat[None]) ** 2).sum(-1)
    score = np.sort(gaps, axis=1)[:, 1 : len(CASES) - 1 - 2 + 1].sum(1)
    return stacked(number, name)[score.argmin()]


@pytest.mark.parametrize(
    ("strategy", "formula"),
    [("fedavg", mean), ("fedprox", mean), ("fedmedian", median), ("trimmed-mean", trimmed), ("krum", nearest)],
)
def test_without_memory(strategy, formula):
    found = run(Federation(sites=5, strategy=strategy, malicious=1, trim=0.2))
    for number, weights in enumerate(found, 1):
        for name in SHAPES:
            np.testing.assert_allclose(weights[name], formula(number, name), rtol=1e-5, atol=1e-6)


def momentum(rounds, name, lr, beta):
    """FedAvgM (Hsu et al. 2019, section 4.3)."""
    weights, velocity = random_weights(99)[name].astype(float), 0.0
    for number in range(1, rounds + 1):
        velocity = beta * velocity + (weights - mean(number, name))
        weights = weights - lr * velocity
    return weights


def adaptive(rounds, name, lr, beta, yogi):
    """FedYogi and FedAdam (Reddi et al. 2021, algorithm 2); Flower's Adam counts one round more."""
    weights, m, v, tau, beta_2 = random_weights(99)[name].astype(float), 0.0, 0.0, 1e-3, 0.99
    for number in range(1, rounds + 1):
        delta = mean(number, name) - weights
        m = beta * m + (1 - beta) * delta
        v = v - (1 - beta_2) * delta**2 * np.sign(v - delta**2) if yogi else beta_2 * v + (1 - beta_2) * delta**2
        rate = lr if yogi else lr * np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta ** (number + 1))
        weights = weights + rate * m / (np.sqrt(v) + tau)
    return weights


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedyogi"])
def test_with_memory(strategy):
    found = run(Federation(sites=5, strategy=strategy, server_lr=0.3, momentum=0.8), rounds=3)
    for name in SHAPES:
        for rounds in (1, 2, 3):
            if strategy == "fedavgm":
                expected = momentum(rounds, name, 0.3, 0.8)
            else:
                expected = adaptive(rounds, name, 0.3, 0.8, strategy == "fedyogi")
            np.testing.assert_allclose(found[rounds - 1][name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedyogi"])
def test_memory_survives_a_checkpoint(strategy, tmp_path):
    federation = Federation(sites=5, strategy=strategy)
    straight = run(federation, rounds=3)
    first, weights = Combination(federation, ()), random_weights(99)
    for number in (1, 2):
        first.configure(number, weights, range(len(CASES)))
        weights = first.combine(number, reports_of(number), weights)
    torch.save(first.state, tmp_path / "state.pt")
    second = Combination(federation, ())
    second.state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.configure(3, weights, range(len(CASES)))
    weights = second.combine(3, reports_of(3), weights)
    assert all(np.array_equal(value, straight[-1][name]) for name, value in weights.items())


def test_the_weighted_mean_does_not_depend_on_the_order():
    federation, start = Federation(sites=5), random_weights(99)
    results = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        combination = Combination(federation, ())
        combination.configure(1, start, range(len(CASES)))
        results.append(combination.combine(1, [reports_of(1)[site] for site in order], start))
    for name in SHAPES:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedyogi"])
def test_statistics_are_averaged_beside_an_optimiser(strategy):
    found = run(Federation(sites=5, strategy=strategy), statistics=["b"])
    for number, weights in enumerate(found, 1):
        np.testing.assert_allclose(weights["b"], mean(number, "b"), rtol=1e-5, atol=1e-6)
        assert not np.allclose(weights["a"], mean(number, "a"))
