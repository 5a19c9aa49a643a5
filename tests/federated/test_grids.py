"""Where sites train changes nothing: one process, worker processes, Ray; a worker that dies costs only its site."""

import socket

import pytest
import torch
from flwr.app import Message, MessageType, RecordDict

from mae_bench_federated.grids.local import LocalGrid
from mae_bench_federated.grids.pool import PoolGrid
from mae_bench_federated.rounds import run_rounds
from mae_bench_federated.simulate import course_of
from mae_bench_federated.site import Workplace
from tests.federated.sites import pretrain_job

SETTINGS = {"pretrain__steps": 4, "federation__sites": 3, "federation__rounds": 2, "pretrain__hidden": 32}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def one_thread():
    """Workers share the threads of this process; with one each, sums are made in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shared(store, folder, open_grid, meddle=lambda grid: None):
    """Momentum contrast, for its state that stays at the sites; the module and what happened."""
    job = pretrain_job(store, folder, "moco", **SETTINGS)
    place = Workplace.simulated(job)
    grid = open_grid(place)
    try:
        meddle(grid)
        account = run_rounds(course_of(place), grid)
    finally:
        grid.close()
    job.module.load_state_dict(place.private, strict=False)
    return job.module.state_dict(), account


def test_replies_come_in_the_order_of_the_messages(tmp_path, store):
    place = Workplace.simulated(
        pretrain_job(store, tmp_path, **SETTINGS | {"pretrain__hidden": 32}, pretraining="moco")
    )
    grid = LocalGrid(place)
    nodes = list(grid.get_node_ids())
    messages = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.TRAIN) for node in reversed(nodes)]
    replies = list(grid.send_and_receive(messages))
    assert [reply.metadata.src_node_id for reply in replies] == nodes[::-1]
    assert all("expected the records" in reply.error.reason for reply in replies)
    assert [node.name for node in grid.get_nodes()] == ["site 0", "site 1", "site 2"]
    grid.close()


@pytest.mark.slow
def test_worker_processes_give_the_same_bits(tmp_path, store, one_thread):
    here, told = shared(store, tmp_path / "local", LocalGrid)
    there, also_told = shared(store, tmp_path / "pool", lambda place: PoolGrid(place, 2))
    assert also_told.history.losses == told.history.losses
    assert also_told.losses == told.losses
    for name, value in here.items():
        assert torch.equal(there[name], value), name


@pytest.mark.slow
def test_a_dead_worker_costs_only_its_site(tmp_path, store):
    _, account = shared(store, tmp_path, lambda place: PoolGrid(place, 2), lambda grid: grid.workers[0].process.kill())
    (event,) = account.history.events
    assert event["event"] == "site left out"
    assert event["round"] == 1
    assert event["reason"] == "crashed: its process ended"
    assert [len(each["sites"]) for each in account.rounds] == [2, 3]
    assert event["site"] not in account.rounds[0]["sites"]


@pytest.mark.slow
def test_ray_gives_the_same_bits(tmp_path, store, one_thread, monkeypatch):
    ray = pytest.importorskip("ray")
    from mae_bench_federated.grids.ray import RayWorker

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        here, told = shared(store, tmp_path / "local", LocalGrid)
        there, also_told = shared(store, tmp_path / "ray", lambda place: PoolGrid(place, 2, RayWorker))
    finally:
        ray.shutdown()
    assert also_told.history.losses == told.history.losses
    for name, value in here.items():
        assert torch.equal(there[name], value), name


def test_nothing_is_looked_up(tmp_path, store, monkeypatch):
    """No name is resolved and no socket is opened by a simulation."""
    opened = []
    connect = socket.socket.connect

    def record(self, address):
        opened.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *query, **more: opened.append(query) or [])
    shared(store, tmp_path, LocalGrid)
    assert opened == []
