"""What records must keep together: no cell twice, none that another replaces, one version of the rules, one truth."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import permutations
from typing import Any

from mae_bench.leaderboard.board import board_name
from mae_bench.leaderboard.submission import Submission
from mae_bench.values import canonical_json


def disagreements(submissions: Sequence[Submission]) -> Iterator[str]:
    """Everything that is wrong with records beside each other, a line for each, naming the file."""
    yield from _twice(submissions)
    for same in _groups(submissions, lambda each: board_name(each.record)):
        yield from _old_rules(same)
        yield from _replaced(same)
    for same in _groups(submissions, lambda each: each.record.data.fingerprint):
        yield from _other_cases(same)


def same_scores(submissions: Sequence[Submission]) -> Iterator[str]:
    """Records with the same per-case scores to the last digit: by design (nothing is drawn), or one was copied."""
    for same in _groups(submissions, lambda each: each.record.cases and each.record.cases.sha256):
        if len(same) > 1:
            yield f"{_file(same[0])}: the same per-case scores as {', '.join(each.key for each in same[1:])}"


def _groups(submissions: Sequence[Submission], by: Callable[[Submission], Hashable]) -> list[list[Submission]]:
    found: dict[Hashable, list[Submission]] = defaultdict(list)
    for submission in submissions:
        found[by(submission)].append(submission)
    return list(found.values())


def _twice(submissions: Sequence[Submission]) -> Iterator[str]:
    for same in _groups(submissions, lambda each: each.key):
        for other in same[1:]:
            yield f"{_file(other)}: duplicate: {_file(same[0])} is the same run"


def _old_rules(submissions: Sequence[Submission]) -> Iterator[str]:
    newest = max(each.record.spec.protocol.version for each in submissions)
    for each in submissions:
        rules = each.record.spec.protocol
        if rules.version < newest:
            yield f"{_file(each)}: protocol {rules.name}: version {rules.version} is superseded by {newest} here"


def _replaced(submissions: Sequence[Submission]) -> Iterator[str]:
    """A run is replaced by one of the same cell whose plugins have more options: it came from a later version."""
    for same in _groups(submissions, lambda each: _cell(each)):
        for old, new in permutations(same, 2):
            if old.record.spec.protocol.version <= new.record.spec.protocol.version and _grew(old, new):
                yield f"{_file(old)}: superseded by {new.key}: the same cell, with options that this one lacks"
                break


def _cell(submission: Submission) -> str:
    """The specification but for the options of its plugins."""
    spec = submission.record.spec.model_dump(mode="json", exclude={"protocol": {"summary"}, "recipe": {"summary"}})
    for place in ("dataset", "backbone", "pretrain", "head"):
        spec[place] = spec[place]["name"]
    return canonical_json(spec)


def _grew(old: Submission, new: Submission) -> bool:
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (getattr(old.record.spec, place).options, getattr(new.record.spec, place).options)
        for place in ("dataset", "backbone", "pretrain", "head")
    ]
    return all(first.items() <= second.items() for first, second in map(_texts, pairs)) and any(
        len(second) > len(first) for first, second in pairs
    )


def _texts(pair: tuple[dict[str, Any], dict[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    first, second = ({name: canonical_json(value) for name, value in options.items()} for options in pair)
    return first, second


def _other_cases(submissions: Sequence[Submission]) -> Iterator[str]:
    """Records of one fingerprint saw the same files: what they say of a case cannot differ."""
    told: dict[str, tuple[Submission, tuple[str, str]]] = {}
    for each in submissions:
        for case, identity in each.record.data.identities.items():
            first, said = told.setdefault(case, (each, (identity.subject, identity.sha256)))
            if said != (identity.subject, identity.sha256):
                yield f"{_file(each)}: data.identities: of case {case!r} it says otherwise than {first.key}"
                break


def _file(submission: Submission) -> str:
    return str(submission.path(".json"))
