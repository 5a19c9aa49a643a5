"""Boards: what was measured on one data set under one protocol, in sections of records that answer one question."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mae_bench.leaderboard.contamination import lane_of, undisclosed
from mae_bench.leaderboard.label import address_of, method_labels, method_of
from mae_bench.leaderboard.submission import Submission
from mae_bench.record import ResultRecord
from mae_bench.values import digest


@dataclass(frozen=True)
class Method:
    """One row: the runs of one method by fine-tuning seed. more: runs with further pre-training seeds, not ranked."""

    address: str
    label: str
    runs: Mapping[int, Submission]
    more: tuple[Submission, ...]

    @property
    def record(self) -> ResultRecord:
        """A record of it: what they all share can be read in any."""
        return next(iter(self.runs.values())).record


@dataclass(frozen=True)
class Section:
    """Methods that answer one question: same images, split, rules, label share, metric. title: what sets it apart."""

    address: str
    title: str
    labels: float
    lane: str
    metric: str
    methods: tuple[Method, ...]


class BoardName(NamedTuple):
    """What a board is. Records of stand-in data have boards of their own."""

    dataset: str
    protocol: str
    kind: str

    @property
    def slug(self) -> str:
        """Name for files and folders."""
        return f"{self.dataset}-{self.protocol}" + ("-demo" if self.kind == "demo" else "")

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.dataset}, {self.protocol}" + (" (demo data)" if self.kind == "demo" else "")


@dataclass(frozen=True)
class Board:
    """One board with its sections: most labels first, and of the same share the one with most records."""

    name: BoardName
    sections: tuple[Section, ...]


def board_name(record: ResultRecord) -> BoardName:
    """The board of a record."""
    return BoardName(record.spec.dataset.name, record.spec.protocol.name, record.data.kind)


def make_boards(submissions: Sequence[Submission]) -> list[Board]:
    """Sort finished records into boards, by name."""
    found: dict[BoardName, list[Submission]] = defaultdict(list)
    for submission in submissions:
        found[board_name(submission.record)].append(submission)
    return [_board(name, found[name]) for name in sorted(found)]


def question_of(record: ResultRecord) -> dict[str, Any]:
    """What a record answers: which images, on which side, under which rules, with how many labels, by which metric.

    The options of the data set count through what they change: the images, the rules and the regions that are scored.
    """
    spec = record.spec.model_dump(mode="json", include={"data", "labels"})
    rules = record.spec.protocol.model_dump(mode="json", exclude={"summary"})
    return spec | {
        "protocol": rules,
        "metric": record.main_metric,
        "metrics": sorted(record.metrics),
        "lane": lane_of(record),
    }


def _board(name: BoardName, submissions: Sequence[Submission]) -> Board:
    methods: dict[str, dict[str, Any]] = {}
    sections: dict[str, dict[str, list[Submission]]] = defaultdict(lambda: defaultdict(list))
    questions: dict[str, dict[str, Any]] = {}
    for submission in submissions:
        method, question = method_of(submission.record.spec), question_of(submission.record)
        address, place = address_of(method), digest(question)
        methods[address], questions[place] = method, question
        sections[place][address].append(submission)
    labels = method_labels(methods)
    several = len({digest({**question, "labels": 0, "lane": ""}) for question in questions.values()}) > 1
    made = [
        Section(
            place,
            _title(question, place, several),
            question["labels"],
            question["lane"],
            question["metric"],
            tuple(_method(address, labels[address], runs) for address, runs in sections[place].items()),
        )
        for place, question in questions.items()
    ]
    return Board(name, tuple(sorted(made, key=lambda each: (each.lane, -each.labels, -_records(each), each.address))))


def _records(section: Section) -> int:
    return sum(len(method.runs) + len(method.more) for method in section.methods)


def _method(address: str, label: str, submissions: Sequence[Submission]) -> Method:
    by_seed: dict[int, list[Submission]] = defaultdict(list)
    for submission in submissions:
        by_seed[submission.record.spec.seed].append(submission)
    runs, more = {}, []
    for seed, same in sorted(by_seed.items()):
        # Of several pre-trainings under one seed, the one that bears its number; seeds must be met once to be paired.
        first, *others = sorted(
            same, key=lambda each: (each.record.spec.pretrain_seed != seed, each.record.spec.pretrain_seed)
        )
        runs[seed] = first
        more += others
    if any(undisclosed(each.record) for each in submissions):
        label += " (pre-training cases not disclosed)"
    return Method(address, label, runs, tuple(more))


def _title(question: Mapping[str, Any], place: str, several: bool) -> str:
    share = question["labels"]
    parts = ["all labels" if share == 1 else f"{100 * share:g} % of the labels"]
    if several:
        parts.append(
            f"protocol version {question['protocol']['version']}, images {question['data']['fingerprint'][:8]}"
        )
        parts.append(f"question {place[:6]}")
    if question["lane"]:
        parts.append("pre-trained on test cases")
    return ", ".join(parts)
