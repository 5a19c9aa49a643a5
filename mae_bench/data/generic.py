"""What data sets that read anybody's files have in common: whom a case shows, and what its intensities mean."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Layout
from mae_bench.task import Intensity

# What nnU-Net does with a channel of this name, in any case; any other name is z-scored.
CT, COLOUR, OTHER = "ct", "rgb_to_0_1", ("nonorm", "rescale_to_0_1")

SUBJECT = (
    "regular expression whose group, or whole match, is the patient in the name of a case, as (patient\\d+)_frame; "
    "when not given, each case is a patient of its own"
)


def with_subjects(layout: Layout, pattern: str) -> Layout:
    """The layout with each case's subject taken from its name: cases of one patient must not lie on two sides.

    Raises:
        UsageError: no valid expression, or one that is not found in a name.
    """
    if not pattern:
        return layout
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--subject {pattern}: not a regular expression: {error}") from error
    cases = []
    for case in layout.cases:
        found = expression.search(case.id)
        name = None if found is None else found.group(1 if expression.groups else 0)
        if not name:
            raise UsageError(f"--subject {pattern}: names no patient in {case.id}")
        cases.append(replace(case, subject=name))
    return replace(layout, cases=tuple(cases))


def choose_intensity(
    kind: Literal["auto", "zscore", "window"], low: float, high: float, channels: Sequence[str]
) -> Intensity:
    """One normalisation for all channels; `auto` is by their names: the window for CT, else z-score.

    Raises:
        InputError: `auto`, and the names of the channels ask for different ones, or for none of ours.
    """
    if kind == "auto":
        names = {name.casefold() for name in channels}
        special = names & {CT, COLOUR, *OTHER}
        if special and names not in ({CT}, {COLOUR}):
            raise InputError(
                f"dataset.json: channels {', '.join(channels)}: there is one normalisation for all channels, "
                "and it is z-score or a window",
                "choose with --intensity zscore, or --intensity window --low ... --high ...",
            )
        if names == {COLOUR}:
            low, high = 0.0, 255.0
        kind = "window" if special else "zscore"
    if kind == "zscore":
        return Intensity(kind="zscore")
    return Intensity(kind="window", low=low, high=high)
