"""Ray as it is: a real cluster on this machine, workers and nodes that are really killed."""

import contextlib
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from mae_bench.errors import UsageError
from mae_bench.executors.inline import InlineExecutor
from mae_bench.executors.ray import QUIET, RayExecutor, RayOptions
from mae_bench.grid.execution import TRIES, Execution
from mae_bench.grid.file import Grid
from mae_bench.grid.journal import Journal
from mae_bench.grid.plan import make_plan
from mae_bench.registry import registry
from mae_bench.store import Store
from tests.grid.tiny import computed, tiny_grid

os.environ.update(QUIET)
ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray leaves pipes of the processes that it starts to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LONG = {"pretrain.steps": 400, "finetune.steps": 10}


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    # A dead node is noticed after a second, not after half a minute.
    quick = {"health_check_period_ms": 500, "health_check_timeout_ms": 500, "health_check_failure_threshold": 2}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    ray.shutdown()
    made.shutdown()


def execute(grid: Grid, store: Store, options: RayOptions) -> dict[str, str]:
    plan = make_plan(grid, store, registry(), {})
    for identity, task in plan.tasks.items():
        work = task.work.model_copy(update={"checkpoint_minutes": 0.01})
        plan.tasks[identity] = type(task)(**{**vars(task), "work": work})
    journal = Journal(store, grid)
    journal.begin(plan, "ray")
    with RayExecutor().open(options, None) as pool:
        outcomes = Execution(plan, journal, pool).run()
    return {identity: outcome.status for identity, outcome in outcomes.items()}


def metrics(store: Store) -> dict[str, Any]:
    return {record.key: (record.metrics, record.cases) for record in store.records()}


def when_training(store: Store, work: Any) -> threading.Thread:
    """Do `work` once the checkpoint of an encoder has been replaced by a later one."""

    def watch() -> None:
        seen: dict[Path, int] = {}
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for path in store.root.glob("encoders/*/checkpoint.pt"):
                with contextlib.suppress(FileNotFoundError):
                    if seen.setdefault(path, path.stat().st_ino) != path.stat().st_ino:
                        work()
                        return
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def alone(grid: Grid, store: Store) -> None:
    """Run the grid in this process, one thread as a slot has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with InlineExecutor().open(InlineExecutor.Options(), None) as pool:
            Execution(make_plan(grid, store, registry(), {}), Journal(store, grid), pool).run()
    finally:
        torch.set_num_threads(threads)


def test_two_places_give_the_records_of_one(tmp_path: Path) -> None:
    """An encoder that three cells share is made once."""
    grid = tiny_grid({"pretrain": "mae", "labels": [0.25, 0.5, 1.0]}, {"pretrain": "scratch"})
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    before = os.environ.get("OMP_NUM_THREADS")
    alone(grid, here)
    states = execute(grid, there, RayOptions(slots=2))
    assert sorted(states.values()) == ["done"] * 5
    assert metrics(there) == metrics(here)
    assert set(computed(there, grid).values()) == {1}
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_slot_has_the_threads_of_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store = Store(tmp_path)
    execute(tiny_grid({"pretrain": "scratch"}), store, RayOptions(slots=1, cpus=2))
    assert [record.environment["threads"] for record in store.records()] == [2]


def performing() -> list[psutil.Process]:
    """Workers that are doing a stage: Ray writes into their titles what they are at."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "perform" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_ten_workers_killed_at_random(tmp_path: Path) -> None:
    """Each loses only its stage, which continues elsewhere; the records are those of a run that nobody disturbed."""
    grid = tiny_grid({"pretrain": "mae", "seed": [0, 1, 2, 3, 4]}, **LONG)
    store, quiet = Store(tmp_path / "killed"), Store(tmp_path / "quiet")
    journal, chance, killed, over = Journal(store, grid), random.Random(0), [], threading.Event()

    def kill() -> None:
        while len(killed) < 10 and not over.wait(chance.uniform(0.2, 3)):
            events = list(journal.events())
            ended = {event["task"] for event in events if event["event"] in ("done", "found")}
            lost = Counter(e["task"] for e in events if e["event"] == "lost" and e["task"] not in ended)
            # A stage that loses its worker once more than this is given up, which is another test.
            if max(lost.values(), default=0) < TRIES - 1 and (busy := performing()):
                victim = chance.choice(busy)
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid)
                    psutil.wait_procs([victim], timeout=10)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        states = execute(grid, store, RayOptions(slots=2))
    finally:
        over.set()
        thread.join()
    assert len(killed) == 10
    assert set(states.values()) <= {"done", "found"}  # found: killed between the record and the answer
    assert max(computed(store, grid).values()) == 1
    alone(grid, quiet)
    assert metrics(store) == metrics(quiet)
    assert len(metrics(store)) == 5


def test_a_lost_node_is_replaced_by_the_other(tmp_path: Path, cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    grid, store = tiny_grid({"pretrain": "mae", "seed": [0, 1]}, **LONG), Store(tmp_path)
    thread = when_training(store, lambda: cluster.remove_node(nodes[0], allow_graceful=False))
    states = execute(grid, store, RayOptions(address=cluster.address))
    thread.join()
    assert set(states.values()) == {"done"}
    lost = [event for event in Journal(store, grid).events() if event["event"] == "lost"]
    assert len(lost) >= 1
    assert set(computed(store, grid).values()) == {1}


def test_each_place_gets_its_own_gpu(tmp_path: Path, cluster: Any) -> None:
    """Placement by Ray's logical GPUs: two of them, two places, each told another one."""
    cluster.add_node(num_cpus=4, num_gpus=2)
    cluster.wait_for_nodes()
    with RayExecutor().open(RayOptions(address=cluster.address), None) as pool:
        assert pool.slots == 2
        told = ray.remote(num_gpus=1)(lambda: (time.sleep(2), os.environ["CUDA_VISIBLE_DEVICES"])[1])
        assert sorted(ray.get([told.remote(), told.remote()])) == ["0", "1"]
        grid, store = tiny_grid({"pretrain": "scratch", "seed": [0, 1]}), Store(tmp_path)
        plan = make_plan(grid, store, registry(), {})
        outcomes = Execution(plan, Journal(store, grid), pool).run()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}


def test_a_cluster_without_room_is_refused(cluster: Any) -> None:
    with (
        pytest.raises(UsageError, match="no slot"),
        RayExecutor().open(RayOptions(address=cluster.address, cpus=64), None),
    ):
        pass


def test_a_failure_is_told_and_the_place_is_used_again(tmp_path: Path) -> None:
    grid = tiny_grid({"pretrain": "mae", "set": {"pretrain.lr": 1e30, "pretrain.steps": 40}}, {"pretrain": "scratch"})
    states = execute(grid, Store(tmp_path), RayOptions(slots=1))
    assert sorted(states.values()) == ["done", "failed", "failed"]
    records = {record.spec.pretrain.name: record for record in Store(tmp_path).records()}
    assert "diverged" in records["mae"].reason
    assert json.loads(records["scratch"].model_dump_json())["status"] == "ok"
