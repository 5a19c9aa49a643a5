"""Shared training against central training, bit for bit and to rounding; killed and continued; what is left behind."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mae_bench.data.crops import Batch
from mae_bench.engine import loop
from mae_bench.errors import Interrupted, UsageError
from mae_bench.spec import Federation
from mae_bench_federated.simulate import simulate
from mae_bench_federated.site import Workplace
from tests.federated.sites import COMMAND, RUN, finetune_job, pretrain_job, run_json

STRATEGIES = list(Federation.model_fields["strategy"].annotation.__args__)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def weights_of(job):
    return {name: value.clone() for name, value in job.module.state_dict().items()}


def same(job, other):
    """All but counters of batches, which nothing reads."""
    a, b = weights_of(job), weights_of(other)
    return all(torch.equal(value, b[name]) for name, value in a.items() if not name.endswith("num_batches_tracked"))


@pytest.mark.parametrize("pretraining", ["mae", "moco"])
def test_one_site_equals_central_training_bit_for_bit(tmp_path, store, pretraining):
    settings = {"pretrain__steps": 8} | ({"pretrain__hidden": 32} if pretraining == "moco" else {})
    central = pretrain_job(store, tmp_path / "central", pretraining, **settings)
    facts = central.finish(loop.train(central.plan(), central.setting))
    shared = pretrain_job(
        store, tmp_path / "shared", pretraining, **settings, federation__sites=1, federation__rounds=4
    )
    found = simulate(shared)
    assert same(central, shared)
    assert found["loss"] == facts["loss"]
    assert found["samples"] == facts["samples"]
    assert (tmp_path / "shared/losses.csv").read_bytes() == (tmp_path / "central/losses.csv").read_bytes()
    encoders = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("central", "shared")]
    assert encoders[0] == encoders[1]
    # The representation is looked at after the same steps.
    assert [event for event in found["events"] if event["event"] == "representation"] == [
        event for event in facts["events"] if event["event"] == "representation"
    ]


def test_one_site_fine_tunes_as_central_training_does(tmp_path, store):
    settings = {"finetune__steps": 4, "finetune__checks": 2}
    central = finetune_job(store, tmp_path / "central", **settings)
    facts = central.finish(loop.train(central.plan(), central.setting))
    shared = finetune_job(
        store, tmp_path / "shared", **settings, federation__sites=1, federation__rounds=2,
        federation__stages="finetune",
    )  # fmt: skip
    found = simulate(shared)
    assert same(central, shared)
    assert found["selection"] == facts["selection"]
    assert found["losses"] == facts["losses"]


def test_one_local_step_of_equal_sites_is_a_step_on_all_their_batches(tmp_path, store):
    """SGD without momentum; the central batch is the sites' batches, one after the other."""
    settings = {
        "finetune__steps": 5, "finetune__optimizer": "sgd", "finetune__betas": [0.0, 0.0], "finetune__lr": 0.05,
        "finetune__drop_path": 0.0, "finetune__weight_decay": 0.0, "finetune__checks": 1,
        "dataset__target": "atrophy",
    }  # fmt: skip
    federation = {"federation__sites": 3, "federation__rounds": 5, "federation__stages": "finetune"}
    shared = finetune_job(store, tmp_path / "shared", **settings, **federation)
    cases = list(shared.cases)[: len(shared.cases) // 3 * 3]
    shared.cases = shared.train = cases
    place = Workplace.simulated(shared)
    assert [len(own) for own in place.cases] == [len(cases) // 3] * 3
    parts = [place.plan(site).batch for site in range(3)]
    central = finetune_job(store, tmp_path / "central", **settings, **federation)
    plan = replace(central.plan(), batch=lambda step: together([part(step) for part in parts]))
    loop.train(plan, central.setting)
    start = finetune_job(store, tmp_path / "start", **settings, **federation)
    simulate(shared)
    a, b, before = weights_of(central), weights_of(shared), weights_of(start)
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-5, atol=1e-5)
    assert max(float((a[name] - before[name]).abs().max()) for name in a) > 1e-3


def together(batches):
    """One batch of several."""
    columns = zip(*batches, strict=True)
    return Batch(*(None if column[0] is None else np.concatenate(column) for column in columns))


def cut_after(job, steps):
    """A signal after so many steps of sites: the run ends between two checkpoints of the server."""
    seen = []

    def after_step(done):
        seen.append(done)
        if len(seen) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    job.objective.after_step = after_step


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cut_and_continued_equals_uninterrupted(tmp_path, store, strategy):
    """Every bit of weights and losses, for each strategy; only some sites take part in a round."""
    settings = {
        "pretrain__steps": 6, "federation__sites": 5, "federation__rounds": 3, "federation__strategy": strategy,
        "federation__participation": 0.7, "federation__trim": 0.3,
    }  # fmt: skip
    straight = pretrain_job(store, tmp_path / "straight", **settings)
    expected = simulate(straight)
    cut = pretrain_job(store, tmp_path / "cut", **settings)
    cut_after(cut, 11)
    with pytest.raises(Interrupted):
        simulate(cut)
    again = pretrain_job(store, tmp_path / "cut", **settings)
    found = simulate(again)
    assert same(straight, again)
    assert found["loss"] == expected["loss"]
    assert found["events"] == expected["events"]
    tables = [Path(tmp_path, name, "site_losses.csv").read_bytes() for name in ("straight", "cut")]
    assert tables[0] == tables[1]


def test_what_is_left_behind(tmp_path, store):
    job = pretrain_job(store, tmp_path, pretrain__steps=5, federation__sites=2, federation__rounds=2)
    facts = simulate(job)
    table = pd.read_csv(tmp_path / "site_losses.csv")
    assert list(table.columns) == ["round", "site", "step", "loss"]
    assert table.groupby("site")["step"].apply(list).to_dict() == {f"site {k}": [1, 2, 3, 4, 5] for k in (0, 1)}
    assert facts["samples"] == 2 * 5 * 2
    size = sum(value.nbytes for value in job.module.state_dict().values())
    assert facts["bytes_up"] == facts["bytes_down"] == 2 * 2 * size
    assert facts["events"][0] == {"event": "sites", "stage": "pretrain", "cases": {"site 0": 3, "site 1": 3}}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt", "encoder.safetensors", "losses.csv", "reconstruction.png", "rounds.json", "site_losses.csv",
    ]  # fmt: skip


def test_half_precision_halves_what_travels_and_changes_little(tmp_path, store):
    settings = {"pretrain__steps": 4, "federation__sites": 2, "federation__rounds": 2}
    whole = pretrain_job(store, tmp_path / "whole", **settings)
    half = pretrain_job(store, tmp_path / "half", **settings, federation__half=True)
    facts = [simulate(job) for job in (whole, half)]
    assert facts[1]["bytes_up"] * 2 == facts[0]["bytes_up"]
    assert facts[1]["bytes_down"] * 2 == facts[0]["bytes_down"]
    for name, value in weights_of(whole).items():
        torch.testing.assert_close(weights_of(half)[name], value, rtol=1e-2, atol=2e-3)


def test_rounds_leave_no_layer_of_mixed_precision_on_the_module(tmp_path, store):
    """Accelerate wraps `forward` each time a module is prepared: after some hundred rounds Python would refuse."""
    settings = {"pretrain__steps": 4, "federation__sites": 2, "federation__rounds": 4}
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        job = pretrain_job(store, tmp_path, **settings)
        assert job.setting.accelerator.mixed_precision == "no"
        AcceleratorState._reset_state(reset_partial_state=True)
        job.setting = loop.Setting(Accelerator(cpu=True, mixed_precision="bf16"))
        before = job.module.forward
        simulate(job)
        assert job.module.forward == before
        assert not hasattr(job.module, "_original_forward")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_through_the_command_line(tmp_path):
    """The same specification gives the same record, with the sites' scores and the bytes that travelled."""
    command = [*RUN, "--pretrain", "mae", "--sites", 3, "--local-steps", 2, "--rounds", 2, "--partition", "dirichlet"]
    record = run_json(*command, "--store", tmp_path / "a")
    assert record["spec"]["federation"]["sites"] == 3
    assert record["spec"]["recipe"]["pretrain"]["steps"] == 4
    assert record["cost"]["bytes_up"] == record["cost"]["bytes_down"] > 0
    scores = next(event for event in record["events"] if event["event"] == "site scores")
    assert scores["worst_score"] == min(scores["scores"].values())
    again = run_json(*command, "--store", tmp_path / "b")
    assert again["metrics"] == record["metrics"]
    assert again["events"] == record["events"]
    alone = run_json(*command, "--only", 1, "--store", tmp_path / "a")
    assert alone["key"] != record["key"]
    assert alone["cost"]["bytes_up"] == 0


def test_privacy_without_noise_or_mean_is_refused(tmp_path, store):
    federation = {"federation__sites": 2, "federation__privacy": "central"}
    for wrong in ({"federation__strategy": "krum"}, {"federation__noise": 0}):
        with pytest.raises(UsageError, match=r"--strategy|noise"):
            simulate(pretrain_job(store, tmp_path, **federation, **wrong))


@pytest.mark.slow
def test_killed_and_continued_equals_uninterrupted(tmp_path):
    """Kill -9 between rounds and within one, through the command line."""
    command = [*RUN, "--pretrain", "mae", "--sites", 2, "--local-steps", 4, "--rounds", 3, "--strategy", "fedadam"]
    straight = run_json(*command, "--store", tmp_path / "straight")
    for _ in range(2):
        process = subprocess.Popen(
            [*COMMAND, *map(str, command), "--store", str(tmp_path / "cut")], stderr=subprocess.DEVNULL
        )
        while not list(tmp_path.glob("cut/encoders/*/checkpoint.pt")) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(1)
        process.kill()
        process.wait()
    again = run_json(*command, "--store", tmp_path / "cut")
    assert again["metrics"] == straight["metrics"]
    assert again["events"] == straight["events"]
