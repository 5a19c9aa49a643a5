"""Runs a plan on an executor: what is ready, what is retried, and what a failure takes with it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mae_bench.grid.executor import Pool
from mae_bench.grid.journal import Journal
from mae_bench.grid.plan import Plan, Task
from mae_bench.grid.work import Outcome

TRIES = 4  # of a stage whose worker died; it continues from its checkpoint each time


@dataclass
class Execution:
    """One run of a plan. told: called after each task with it and its outcome."""

    plan: Plan
    journal: Journal
    pool: Pool
    told: Callable[[Task, Outcome], None] = lambda task, outcome: None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def run(self) -> dict[str, Outcome]:
        """Perform every task that is not done, each when what it needs is; failures do not stop the others.

        Raises:
            Interrupted: a signal came.
        """
        waiting = [task for task in self.plan.tasks.values() if not self._settled(task)]
        running = 0
        while waiting or running:
            while running < self.pool.slots and (task := self._next(waiting)) is not None:
                waiting.remove(task)
                self.journal.write("started", task=task.id)
                self.pool.submit(task.id, task.work)
                running += 1
            if not running:
                break  # what is left needs what failed
            identity, outcome = self.pool.wait()
            running -= 1
            task = self.plan.tasks[identity]
            if outcome.status == "lost":
                self.lost[identity] = self.lost.get(identity, 0) + 1
                self.journal.write("lost", task=identity, reason=outcome.reason)
                if self.lost[identity] < TRIES:
                    waiting.insert(0, task)
                    continue
                outcome = Outcome(status="failed", reason=f"its worker died {TRIES} times: {outcome.reason}")
            self._settle(task, outcome)
            waiting = [task for task in waiting if not self._doomed(task)]
        return self.outcomes

    def _settled(self, task: Task) -> bool:
        """Whether a task was done before the run; then it is told at once."""
        if task.done:
            self._settle(task, Outcome(status="found"))
        return task.done

    def _next(self, waiting: list[Task]) -> Task | None:
        """A task whose needs are met: cells before encoders, so that results come early."""
        ready = [task for task in waiting if all(need in self.outcomes for need in task.needs)]
        return min(ready, key=lambda task: not task.needs, default=None)

    def _settle(self, task: Task, outcome: Outcome) -> None:
        self.outcomes[task.id] = outcome
        self.journal.write(
            outcome.status, task=task.id, seconds=round(outcome.seconds, 3), reason=outcome.reason[:2000]
        )
        self.told(task, outcome)

    def _doomed(self, task: Task) -> bool:
        """A cell whose encoder failed fails with it, and says so."""
        broken = [need for need in task.needs if need in self.outcomes and self.outcomes[need].status == "failed"]
        if not broken:
            return False
        reason = f"its pre-training failed: {self.outcomes[broken[0]].reason}"
        self.pool.give_up(task.work, reason)
        self._settle(task, Outcome(status="failed", reason=reason))
        return True
