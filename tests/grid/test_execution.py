"""Order, retries and failures, with a pool of the test's own: an executor is anything that keeps the interface."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.grid.execution import TRIES, Execution
from mae_bench.grid.file import Grid, Order
from mae_bench.grid.journal import Journal
from mae_bench.grid.plan import Plan, Task
from mae_bench.grid.work import Outcome, Work
from mae_bench.store import Store

ORDER = Order(
    dataset="mni152", pretrain="mae", backbone="vit", head=None, recipe=None, demo=False, protocol=None, labels=1.0,
    seed=0, pretrain_seed=0, settings={},
)  # fmt: skip
GRID = Grid(title="t", summary="s", sweep=[{"dataset": "mni152", "pretrain": "mae"}])  # type: ignore[list-item]
Answer = Callable[[str, int], Outcome]


class Places:
    """Ends what it was handed last first, and answers what the test says for the n-th try."""

    def __init__(self, slots: int, answer: Answer) -> None:
        self.slots, self.answer = slots, answer
        self.running: list[str] = []
        self.tries: dict[str, int] = {}
        self.ended: list[str] = []
        self.given_up: list[str] = []
        self.most = 0

    def submit(self, identity: str, work: Work) -> None:
        self.running.append(identity)
        self.most = max(self.most, len(self.running))

    def wait(self) -> tuple[str, Outcome]:
        identity = self.running.pop()
        self.tries[identity] = self.tries.get(identity, 0) + 1
        self.ended.append(identity)
        return identity, self.answer(identity, self.tries[identity])

    def give_up(self, work: Work, reason: str) -> None:
        self.given_up.append(reason)


def done(identity: str, number: int) -> Outcome:
    return Outcome(status="done", seconds=1.0)


def plan_of(encoders: int, cells: int, ready: tuple[str, ...] = ()) -> Plan:
    """`cells` cells on each of `encoders` encoders, and one without."""
    tasks = {}
    for number in range(encoders):
        first = f"encoder:{number}"
        tasks[first] = Task(first, first, Work(stage="pretrain", order=ORDER, store=Path("s")), done=first in ready)
        for cell in range(cells):
            name = f"cell:{number}.{cell}"
            work = Work(stage="cell", order=ORDER, store=Path("s"))
            tasks[name] = Task(name, name, work, needs=(first,), done=name in ready)
    tasks["cell:alone"] = Task("cell:alone", "alone", Work(stage="cell", order=ORDER, store=Path("s")))
    return Plan((), tasks)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Store(tmp_path), GRID)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 4), st.data())
def test_every_task_is_done_once_after_what_it_needs(
    encoders: int, cells: int, slots: int, data: st.DataObject
) -> None:
    import tempfile

    plan = plan_of(encoders, cells)
    flaky = data.draw(st.sets(st.sampled_from(sorted(plan.tasks))))

    def answer(identity: str, number: int) -> Outcome:
        return Outcome(status="lost") if identity in flaky and number == 1 else done(identity, number)

    with tempfile.TemporaryDirectory() as folder:
        pool = Places(slots, answer)
        outcomes = Execution(plan, Journal(Store(Path(folder)), GRID), pool).run()
    assert set(outcomes) == set(plan.tasks)
    assert all(outcome.status == "done" for outcome in outcomes.values())
    assert pool.most <= slots
    last = {identity: place for place, identity in enumerate(pool.ended)}
    for task in plan.tasks.values():
        assert pool.tries[task.id] == (2 if task.id in flaky else 1)
        assert all(last[need] < pool.ended.index(task.id) for need in task.needs)


def test_a_failed_encoder_takes_its_cells_with_it_and_no_others(journal: Journal) -> None:
    def answer(identity: str, number: int) -> Outcome:
        return Outcome(status="failed", reason="diverged") if identity == "encoder:0" else done(identity, number)

    pool = Places(2, answer)
    outcomes = Execution(plan_of(2, 2), journal, pool).run()
    failed = {identity for identity, outcome in outcomes.items() if outcome.status == "failed"}
    assert failed == {"encoder:0", "cell:0.0", "cell:0.1"}
    assert outcomes["cell:0.1"].reason == "its pre-training failed: diverged"
    assert pool.given_up == ["its pre-training failed: diverged"] * 2
    assert "cell:0.0" not in pool.ended


def test_work_that_kills_its_workers_is_given_up(journal: Journal) -> None:
    pool = Places(1, lambda identity, number: Outcome(status="lost", reason="out of memory"))
    outcomes = Execution(plan_of(0, 0), journal, pool).run()
    assert pool.tries == {"cell:alone": TRIES}
    assert outcomes["cell:alone"].reason == f"its worker died {TRIES} times: out of memory"


def test_what_is_done_is_not_handed_out(journal: Journal) -> None:
    pool = Places(1, done)
    told: list[tuple[str, str]] = []
    Execution(
        plan_of(1, 2, ready=("encoder:0", "cell:0.0")),
        journal,
        pool,
        lambda task, end: told.append((task.id, end.status)),
    ).run()
    assert sorted(pool.ended) == ["cell:0.1", "cell:alone"]
    assert sorted(told)[:2] == [("cell:0.0", "found"), ("cell:0.1", "done")]


def test_the_journal_knows_the_state_of_every_task(journal: Journal) -> None:
    plan = plan_of(1, 1)
    journal.begin(plan, "inline")
    journal.write("started", task="encoder:0")
    assert {task: state["state"] for task, state in journal.states().items()} == {
        "encoder:0": "interrupted", "cell:0.0": "waiting", "cell:alone": "waiting",
    }  # fmt: skip
    with journal.store.claim("encoders", "0"):
        assert journal.states()["encoder:0"]["state"] == "running"
    journal.write("done", task="encoder:0", seconds=2.5)
    journal.write("failed", task="cell:0.0", seconds=1.0, reason="why")
    states = journal.states()
    assert (states["encoder:0"]["state"], states["encoder:0"]["seconds"]) == ("done", 2.5)
    assert (states["cell:0.0"]["state"], states["cell:0.0"]["reason"]) == ("failed", "why")
    with journal.path.open("a") as file:
        file.write('{"event": "do')  # what a killed writer leaves
    assert journal.states() == states
