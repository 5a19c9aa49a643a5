"""A stage in rounds: what one site trains alone between two meetings with a server, by the same loop."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mae_bench.engine import checkpoint
from mae_bench.engine.loop import History, Loop, Plan, Setting
from mae_bench.errors import RunFailed


def bounds(number: int, rounds: int, steps: int) -> tuple[int, int]:
    """Steps of round `number` (from 1), the first counted from 0, the last one left out."""
    return math.ceil(steps * (number - 1) / rounds), math.ceil(steps * number / rounds)


@dataclass(frozen=True)
class Round:
    """The part of a stage that one site trains alone, between two meetings with a server.

    weights: what the server sends, by their names in the plan's module; the site keeps the rest of the module's state
    to itself. keep: continue with the optimiser state of this site's last round instead of a new one.
    """

    start: int
    stop: int
    weights: Mapping[str, Tensor]
    keep: bool = True


def train_round(plan: Plan, setting: Setting, part: Round) -> History:
    """Train from the server's weights for one round; the module holds the result.

    The site's own state (optimiser, queues) after each round stays in the plan's folder, the last two of them, so that
    a round can be repeated: it starts from the state before it, whatever happened since.

    Raises:
        Interrupted: a signal came.
        RunFailed: the loss or the weights were not finite. The state before the round is kept.
    """
    return _SiteLoop(plan, setting, part).run()


class _SiteLoop(Loop):
    """The same steps for one round of one site. It has no retreat: a round that fails is the server's to leave out."""

    def __init__(self, plan: Plan, setting: Setting, part: Round) -> None:
        super().__init__(plan, setting)
        self.part, self.end, self.began = part, part.stop, part.start

    def run(self) -> History:
        """Run to the end of the round, and keep the site's own state."""
        try:
            history = super().run()
        finally:
            self._let_go()
        own = {name: value for name, value in self.plan.module.state_dict().items() if name not in self.part.weights}
        optimizers = {turn: each.state_dict() for turn, each in self.optimizers.items()} if self.part.keep else {}
        checkpoint.save(self._state_path(self.end), {"module": own, "optimizers": optimizers})
        for step, path in self._states():
            if step < self.began:
                path.unlink()
        return history

    def _let_go(self) -> None:
        """Undo what the accelerator did to the module, which sites share over hundreds of rounds."""
        # It holds on to every optimiser it was shown, one for each site and round. Its `free_memory` would also collect
        # garbage, which can take as long as a small round.
        self.accelerator._optimizers.clear()
        self.accelerator._models.clear()
        # Mixed precision wraps `forward` in the instance, once more for each round.
        for name in ("forward", "_original_forward"):
            self.plan.module.__dict__.pop(name, None)

    def _states(self) -> list[tuple[int, Path]]:
        """The states of earlier rounds, oldest first, by the step at which they were left."""
        return sorted((int(path.stem.partition("-")[2]), path) for path in self.plan.folder.glob("site-*.pt"))

    def _state_path(self, step: int) -> Path:
        return self.plan.folder / f"site-{step}.pt"

    def _begin(self) -> None:
        # A site that missed rounds continues with the newest state from before this one.
        before = [(step, path) for step, path in self._states() if step <= self.part.start]
        state = checkpoint.load(before[-1][1]) if before else None
        if state is not None:
            self.began = before[-1][0]
            self.plan.module.load_state_dict(state["module"], strict=False)
            for turn, optimizer in state["optimizers"].items():
                self.optimizers[turn].load_state_dict(optimizer)
        self.plan.module.load_state_dict(self.part.weights, strict=False)
        self.step = self.part.start

    def _retreat(self) -> None:
        raise RunFailed(f"{self.plan.name}: the loss was not finite at step {self.failed}")

    def _save(self, path: Path) -> None:
        """Nothing within a round: it is short, and is repeated from its start."""
