"""The server's loop: ask sites, wait, leave out, combine, save. Flower's own has no quorum and cannot be continued.

A round is repeated bit for bit after the server was killed: it starts from the server's last checkpoint, and a site
keeps its state of the round before.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import nn

from mae_bench.engine import checkpoint
from mae_bench.engine.loop import History
from mae_bench.engine.progress import Reporter
from mae_bench.engine.rounds import bounds
from mae_bench.errors import RunFailed
from mae_bench.spec import Federation
from mae_bench_federated import policy, privacy, weights
from mae_bench_federated.messages import ARRAYS, CONFIG, Report
from mae_bench_federated.strategies import Combination

TRIES = 3  # of a round that misses its quorum
NORMS = 30  # lengths of updates that are remembered
PATIENCE = 30 * 24 * 3600.0  # seconds an order stands when there is no deadline
WIDTHS = {"float16": 2, "float32": 4, "float64": 8}


@dataclass
class Course:
    """A stage as the server sees it.

    check: called with the step after a round that passes one of `check_steps`, the module in evaluation; what it wants
    kept over a restart it puts in `state`. sites: names of those that take part. wire: messages leave this process.
    secret: noise comes from the operating system, not from the seed. draws: what the seed of all
    that is drawn is made of. told: called with all events when there is a new one.
    """

    name: str
    module: nn.Module
    federation: Federation
    steps: int
    samples: int
    folder: Path
    reporter: Reporter
    sites: Sequence[str]
    draws: Sequence[int] = ()
    told: Callable[[list[dict[str, Any]]], None] = lambda events: None
    check: Callable[[int], None] | None = None
    check_steps: set[int] = field(default_factory=set)
    state: dict[str, Any] = field(default_factory=dict)
    wire: bool = False
    secret: bool = False
    find_nodes: Callable[[Grid, Sequence[str]], Mapping[str, int]] | None = None


@dataclass
class Account:
    """What happened. losses: of sites, as rows of round, site, step, loss. rounds: one document each. norms: lengths of
    the last updates. orders: how often sites were asked to train.
    """

    history: History = field(default_factory=History)
    losses: list[list[Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    orders: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    samples: int = 0


def run_rounds(course: Course, grid: Grid) -> Account:
    """Run the stage from its last round, or from the start, to the end; the module holds the result.

    Raises:
        RunFailed: too few sites answered, TRIES times.
        Interrupted: a signal came; the same call repeats the round.
    """
    return Server(course, grid).run()


class Server:
    """The state of a stage between two meetings."""

    def __init__(self, course: Course, grid: Grid) -> None:
        self.course, self.grid, self.federation = course, grid, course.federation
        self.rounds = min(self.federation.rounds, course.steps)
        self.path = course.folder / "checkpoint.pt"
        self.weights = weights.take(course.module)
        self.combination = Combination(self.federation, weights.statistics_names(course.module))
        self.account = Account()
        self.done = 0

    def run(self) -> Account:
        """Run all rounds that are left."""
        course = self.course
        self._restore()
        course.reporter.start(course.name, course.steps)
        while self.done < self.rounds:
            self._round(self.done + 1)
        if self.federation.privacy != "none":
            self.account.history.events.append(privacy.event(self.federation, course.name, self._releases()))
        weights.give(course.module, self.weights)
        return self.account

    def _round(self, number: int) -> None:
        began, account, course = time.monotonic(), self.account, self.course
        start, stop = bounds(number, self.rounds, course.steps)
        reports = self.ask(number, start, stop)
        self.combine(number, reports)
        losses = _mean_losses(reports)
        account.history.losses += losses
        account.losses += [
            [number, site, start + step, loss]
            for site, report in reports.items()
            for step, loss in enumerate(report.losses, 1)
        ]
        account.samples += len(reports) * (stop - start) * course.samples
        self._check(start, stop)
        account.history.seconds += time.monotonic() - began
        account.rounds.append(
            {"round": number, "start": start, "stop": stop, "sites": list(reports), "loss": losses[-1],
             "seconds": round(time.monotonic() - began, 3)}
        )  # fmt: skip
        self.done = number
        self._save()
        course.reporter.advance(stop, loss=sum(losses) / len(losses))

    def ask(self, number: int, start: int, stop: int) -> dict[str, Report]:
        """Reports of a round that has its quorum."""
        reasons: dict[str, str] = {}
        for attempt in range(TRIES):
            chosen = self._choose(number, attempt)
            asked = self._send(number, start, stop, chosen)
            messages = {message.metadata.message_id: site for site, message in asked.messages.items()}
            answers = policy.judge(
                messages,
                asked.replies,
                stop - start,
                self.weights,
                # Under central privacy whoever answers must count, or the noise would hide less: clipping is the bound.
                None if self.federation.privacy == "central" else self.federation.outlier,
                self._rebuild,
                half=self.federation.half,
                earlier=self.account.norms,
            )
            self.account.orders += 1
            self.account.bytes_up += sum(_wire_bytes(reply) for reply in asked.replies)
            reasons = answers.dropped | {site: "not connected" for site in chosen if site not in asked.messages}
            for site, reason in reasons.items():
                self._tell({"event": "site left out", "round": number, "site": site, "reason": reason})
            if len(answers.reports) >= max(1, math.ceil(self.federation.quorum * len(chosen))):
                self.account.norms = [*self.account.norms, *answers.norms][-NORMS:]
                return answers.reports
            self._tell(
                {"event": "quorum missed", "round": number, "answered": len(answers.reports), "asked": len(chosen)}
            )
        raise RunFailed(
            f"{self.course.name}: round {number}: too few sites answered, {TRIES} times: "
            + "; ".join(f"{site}: {reason}" for site, reason in reasons.items())
        )

    def combine(self, number: int, reports: Mapping[str, Report]) -> None:
        """Make the common weights of those of the sites."""
        told = list(reports.values())
        asked = len(self._choose(number, 0))
        if self.federation.privacy == "central":
            told = privacy.equal_and_clipped(told, self.weights, self.federation, asked)
        combined = self.combination.combine(number, told, self.weights)
        if self.federation.privacy == "central":
            combined = privacy.add_noise(combined, privacy.deviation(self.federation, asked), self._noise(number))
        self.weights = combined

    def _choose(self, number: int, attempt: int) -> list[str]:
        """Sites that train in this round, in their order."""
        sites = list(self.course.sites)
        count = max(1, round(self.federation.participation * len(sites)))
        rng = np.random.default_rng([*self.course.draws, 3, number, attempt])
        rows = sorted(int(row) for row in rng.permutation(len(sites))[:count])
        return [sites[row] for row in rows]

    def _send(self, number: int, start: int, stop: int, chosen: Sequence[str]) -> "_Sent":
        find = self.course.find_nodes or _nodes
        there = find(self.grid, chosen)
        if not there:
            return _Sent({}, [])
        names = {node: site for site, node in there.items()}
        arrays = weights.narrow(self.weights) if self.federation.half else self.weights
        record = weights.pack(arrays, wire=self.course.wire)
        asked = {}
        for node, config in self.combination.configure(number, self.weights, list(there.values())):
            config.update({"stage": self.course.name, "start": start, "stop": stop})
            content = RecordDict({ARRAYS: record, CONFIG: config})
            # What nobody waits for any more must not be delivered: a slow site would only fall further behind.
            ttl = self.federation.deadline or PATIENCE
            asked[names[node]] = Message(content, dst_node_id=node, message_type=MessageType.TRAIN, ttl=ttl)
        asked = {site: asked[site] for site in chosen if site in asked}
        self.account.bytes_down += len(asked) * weights.count_bytes(arrays)
        replies = list(self.grid.send_and_receive(list(asked.values()), timeout=self.federation.deadline))
        return _Sent(asked, replies)

    def _rebuild(self, report: Report) -> Report:
        """Full weights: in half precision it is their change that travels, for they lose more by rounding."""
        if not self.federation.half:
            return report
        return report._replace(
            arrays={name: value + report.arrays[name].astype(value.dtype) for name, value in self.weights.items()}
        )

    def _releases(self) -> int:
        """How often noise was drawn: by the server once a round, by the sites also when a round was repeated."""
        return self.rounds if self.federation.privacy == "central" else max(self.rounds, self.account.orders)

    def _noise(self, number: int) -> np.random.Generator:
        return np.random.default_rng(None if self.course.secret else [*self.course.draws, 4, number])

    def _check(self, start: int, stop: int) -> None:
        course = self.course
        if course.check is not None and any(start < step <= stop for step in course.check_steps):
            weights.give(course.module, self.weights)
            course.module.eval()
            course.check(stop)
            course.module.train()

    def _tell(self, event: dict[str, Any]) -> None:
        self.account.history.events.append({**event, "stage": self.course.name})
        self.course.told(self.account.history.events)
        self.course.reporter.note(
            f"{self.course.name}: round {event['round']}: {event['event']}: "
            + (f"{event['site']}: {event['reason']}" if "site" in event else f"{event['answered']} of {event['asked']}")
        )

    def _save(self) -> None:
        account = self.account
        checkpoint.save(
            self.path,
            {
                "round": self.done,
                "weights": weights.tensors(self.weights),
                "strategy": self.combination.state,
                "losses": account.history.losses,
                "events": account.history.events,
                "seconds": account.history.seconds,
                "site_losses": account.losses,
                "rounds": account.rounds,
                "norms": account.norms,
                "orders": account.orders,
                "bytes": [account.bytes_up, account.bytes_down, account.samples],
                "state": self.course.state,
            },
        )

    def _restore(self) -> None:
        state = checkpoint.load(self.path)
        if state is None:
            return
        self.done, account = state["round"], self.account
        self.weights = {name: value.numpy() for name, value in state["weights"].items()}
        self.combination.state = state["strategy"]
        account.history = History(state["losses"], state["events"], state["seconds"])
        account.losses, account.rounds = state["site_losses"], state["rounds"]
        # The round that was cut off may have been ordered already.
        account.norms, account.orders = state["norms"], state["orders"] + 1
        account.bytes_up, account.bytes_down, account.samples = state["bytes"]
        self.course.state.clear()
        self.course.state.update(state["state"])
        self.course.reporter.note(f"{self.course.name}: continuing after round {self.done} of {self.rounds}")


@dataclass(frozen=True)
class _Sent:
    messages: dict[str, Message]
    replies: list[Message]


def _nodes(grid: Grid, sites: Sequence[str]) -> dict[str, int]:
    """Nodes of the named sites that are there."""
    found = {node.name: node.node_id for node in grid.get_nodes()}
    return {site: found[site] for site in sites if site in found}


def _mean_losses(reports: Mapping[str, Report]) -> list[float]:
    """Loss of each step, as the strategies weigh the sites: by their cases."""
    total = sum(report.cases for report in reports.values())
    shares = [report.cases / total for report in reports.values()]
    columns = zip(*(report.losses for report in reports.values()), strict=True)
    return [sum(share * loss for share, loss in zip(shares, losses, strict=True)) for losses in columns]


def _wire_bytes(reply: Message) -> int:
    """Bytes of the numbers in a reply, by what it says of itself."""
    if not reply.has_content():
        return 0
    arrays = [array for record in reply.content.array_records.values() for array in record.values()]
    return sum(math.prod(array.shape) * WIDTHS.get(array.dtype, 0) for array in arrays)
