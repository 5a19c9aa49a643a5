"""Whether an encoder has seen test cases: its pre-training cases against the test cases, by file and by patient.

Self-supervised pre-training needs no labels, but an encoder that has seen the very images it is scored on is another
matter than one that has not. Overlap that is disclosed is shown in a lane of its own.
"""

from collections.abc import Iterable
from typing import NamedTuple

from mae_bench.record import Identity, ResultRecord


class Overlap(NamedTuple):
    """Test cases whose files, and whose patients, were in the pre-training."""

    files: tuple[str, ...]
    patients: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self.files or self.patients)


def overlap(record: ResultRecord) -> Overlap:
    """What the record discloses: its training cases and those of weights from elsewhere, against its test cases."""
    known = record.data.identities
    seen = [known[case] for case in record.data.split.train if case in known]
    seen += record.data.pretrained_on or ()
    tests = {case: known[case] for case in record.data.split.test if case in known}
    files, patients = {each.sha256 for each in seen} - {""}, {each.subject for each in seen} - {""}
    return Overlap(
        _where(tests.items(), "sha256", files),
        _where(tests.items(), "subject", patients),
    )


def lane_of(record: ResultRecord) -> str:
    """The lane in which a record is ranked: the main one, or that of encoders which have seen test cases."""
    return "overlap" if overlap(record).any else ""


def undisclosed(record: ResultRecord) -> bool:
    """Whether the encoder starts from weights of which nobody says what they were made from."""
    return bool(record.spec.start) and record.data.pretrained_on is None


def disclosure(record: ResultRecord) -> str:
    """What can be said of the pre-training cases, in a sentence."""
    found = overlap(record)
    if found.any:
        return (
            f"of {len(record.data.split.test)} test cases, {len(found.files)} have files and {len(found.patients)} "
            "have patients that were in the training or pre-training"
        )
    if undisclosed(record):
        return "the encoder starts from weights whose pre-training cases are not disclosed"
    return "no test case and no test patient was in the training or pre-training"


def _where(tests: Iterable[tuple[str, Identity]], field: str, seen: set[str]) -> tuple[str, ...]:
    return tuple(case for case, identity in tests if getattr(identity, field) in seen)
