"""What records must keep together: no cell twice, none that another replaces, one version of the rules, one truth."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import permutations
from typing import Any

from mae_bench.leaderboard.board import board_name
from mae_bench.leaderboard.submission import Submission
from mae_bench.record import Identity
from mae_bench.values import canonical_json

PLUGINS = ("dataset", "backbone", "pretrain", "head")


def disagreements(submissions: Sequence[Submission]) -> Iterator[str]:
    """Everything that is wrong with records beside each other, a line for each, naming the file."""
    yield from _twice(submissions)
    yield from _one_page(submissions)
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


def _one_page(submissions: Sequence[Submission]) -> Iterator[str]:
    """Names of data set and protocol are joined into that of a file: those of two boards must not join to one."""
    for same in _groups(submissions, lambda each: board_name(each.record).slug.lower()):
        names = list(dict.fromkeys(board_name(each.record) for each in same))
        for each in same:
            if len(names) > 1 and board_name(each.record) != names[0]:
                other = next(known for known in same if board_name(known.record) == names[0])
                yield f"{_file(each)}: its board would be the file {names[0].slug}, as that of {_file(other)}"


def _old_rules(submissions: Sequence[Submission]) -> Iterator[str]:
    newest = max(submissions, key=lambda each: each.record.spec.protocol.version)
    version = newest.record.spec.protocol.version
    for each in submissions:
        rules = each.record.spec.protocol
        if rules.version < version:
            yield (
                f"{_file(each)}: protocol {rules.name}: version {rules.version} is superseded by {version} "
                f"of {_file(newest)}"
            )


def _replaced(submissions: Sequence[Submission]) -> Iterator[str]:
    """A run is replaced by one of the same cell whose plugins have more options: it came from a later version."""
    for same in _groups(submissions, _cell):
        by_names: dict[frozenset[str], dict[str, Submission]] = defaultdict(dict)
        options = {each.key: _options(each) for each in same}
        for each in same:
            by_names[frozenset(options[each.key])][canonical_json(options[each.key])] = each
        for fewer, more in permutations(by_names, 2):
            if fewer < more:
                for new in by_names[more].values():
                    shared = {name: options[new.key][name] for name in fewer}
                    if old := by_names[fewer].get(canonical_json(shared)):
                        yield f"{_file(old)}: superseded by {new.key}: the same cell, with options that this one lacks"


def _cell(submission: Submission) -> str:
    """The specification but for the options of its plugins."""
    spec = submission.record.spec.model_dump(mode="json", exclude={"protocol": {"summary"}, "recipe": {"summary"}})
    for place in PLUGINS:
        spec[place] = spec[place]["name"]
    return canonical_json(spec)


def _options(submission: Submission) -> dict[str, Any]:
    """Options of all plugins, by dotted path."""
    spec = submission.record.spec
    return {f"{place}.{name}": value for place in PLUGINS for name, value in getattr(spec, place).options.items()}


def _other_cases(submissions: Sequence[Submission]) -> Iterator[str]:
    """Records of one fingerprint saw the same files: what they say of a case cannot differ; most are believed."""
    told: dict[str, Counter[Identity]] = defaultdict(Counter)
    for each in submissions:
        for case, identity in each.record.data.identities.items():
            told[case][identity] += 1
    if all(len(said) == 1 for said in told.values()):
        return
    for each in submissions:
        for case, identity in each.record.data.identities.items():
            if (known := told[case].most_common(1)[0][0]) != identity:
                yield f"{_file(each)}: data.identities: case {case!r} is {known.subject!r}, {known.sha256} elsewhere"
                break


def _file(submission: Submission) -> str:
    return str(submission.path(".json"))
