"""What can go wrong, each with the exit code the command line answers with (0, 2, 3, 4, 130)."""

from collections.abc import Sequence


class MaeBenchError(Exception):
    """A failure that is explained to the user in one message, without a traceback."""

    exit_code = 4


class UsageError(MaeBenchError):
    """The command names something that does not exist or does not fit together (exit 2)."""

    exit_code = 2


class InputError(MaeBenchError):
    """The data or the configuration is at fault (exit 3).

    Args:
        what: what is wrong, naming the file or the field.
        hint: what to type or change next.
        problems: one line per offending file or field, when there are several.
    """

    exit_code = 3

    def __init__(self, what: str, hint: str = "", problems: Sequence[str] = ()) -> None:
        self.what = what
        self.hint = hint
        self.problems = tuple(problems)
        super().__init__("\n".join([what, *(f"  - {line}" for line in self.problems), *([hint] if hint else [])]))


class RunFailed(MaeBenchError):
    """The run itself failed: it diverged or ran out of memory (exit 4). Recorded as such, never served as done."""

    exit_code = 4


class Interrupted(MaeBenchError):
    """A signal stopped the run after a checkpoint was written; the same command continues (exit 130)."""

    exit_code = 130
