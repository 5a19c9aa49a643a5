"""Checks a folder of contributions: every fault of every file, then what the records say beside the references."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mae_bench.errors import InputError, UsageError
from mae_bench.leaderboard.board import make_boards
from mae_bench.leaderboard.contamination import disclosure, lane_of, undisclosed
from mae_bench.leaderboard.laws import broken_laws, can_remake_intervals
from mae_bench.leaderboard.neighbours import disagreements, same_scores
from mae_bench.leaderboard.published import published_files, read_published
from mae_bench.leaderboard.reference import Difference, differences
from mae_bench.leaderboard.submission import Refused, Submission, read_submission, record_folders, strangers


@dataclass(frozen=True)
class Checked:
    """What a folder holds. problems: nothing may be built while there are any. notes: what a reviewer should know."""

    submissions: tuple[Submission, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check(root: Path, *, intervals: bool = True) -> Checked:
    """Read every board under `root`, or the one that it is.

    Args:
        intervals: make the intervals again as well as the scores.

    Raises:
        UsageError: no such folder, or no records and no published numbers in it.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    folders = record_folders(root)
    if not folders and not published_files(root):
        raise UsageError(f"{root}: no folder of boards: there is no <board>/records/ in it")
    submissions: list[Submission] = []
    problems: list[str] = []
    for board, folder in folders.items():
        unusable = strangers(folder)
        problems += [f"{path}: {fault}" for path, fault in unusable.items()]
        bad = {path.name.partition(".")[0] for path in unusable}
        for path in sorted(folder.glob("*.json")):
            if path.stem in bad:
                continue
            try:
                found = read_submission(board, path)
            except Refused as refused:
                problems += refused.problems
                continue
            problems += [f"{path}: {fault}" for fault in broken_laws(found, intervals=intervals)]
            submissions.append(found)
    problems += disagreements(submissions)
    for path in published_files(root):
        try:
            read_published(path)
        except InputError as error:
            problems += error.problems or [str(error)]
    return Checked(tuple(submissions), tuple(problems), tuple(_notes(submissions)))


def refuse(checked: Checked) -> None:
    """Raise InputError if there are problems, with a line for each."""
    if checked.problems:
        raise InputError(
            f"{len(checked.problems)} problems in {len(checked.submissions)} readable records",
            "mend or remove the files above; `mae-bench leaderboard add` writes them as they should be",
            checked.problems,
        )


def beside_references(submissions: Sequence[Submission]) -> list[Difference]:
    """Every method beside the references of its section."""
    return [
        difference
        for board in make_boards(submissions)
        for section in board.sections
        for difference in differences(board, section)
    ]


def _notes(submissions: Sequence[Submission]) -> Iterator[str]:
    for each in submissions:
        if lane_of(each.record):
            yield f"{each.path('.json')}: {disclosure(each.record)}: it is ranked in a lane of its own"
        elif undisclosed(each.record):
            yield f"{each.path('.json')}: {disclosure(each.record)}"
        if not can_remake_intervals(each):
            yield f"{each.path('.json')}: too many cases to make its intervals again here; they are as handed in"
    yield from same_scores(submissions)
