"""The command line: one file per command; what is heavy is imported inside the command that needs it."""

import errno
import json
import signal
import sys
from types import FrameType

import typer

from mae_bench.cli import data, doctor, grid, leaderboard, others, plugins, results, run, show, weights
from mae_bench.errors import InputError, Interrupted, MaeBenchError, RunFailed, UsageError
from mae_bench.processes import is_first_process

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which pre-training should a medical image model start from, and how sure are we?",
)
run.register(app)
show.register(app)
doctor.register(app)
app.add_typer(data.app, name="data")
app.add_typer(grid.app, name="grid")
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(plugins.app, name="plugins")
app.add_typer(results.app, name="results")
app.add_typer(weights.app, name="weights")
others.mount(app)

DISK = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENOTDIR, errno.EIO}

RESUME = "interrupted; the same command continues from what was finished"


def main() -> None:
    """Run the command; every failure that can be explained ends in one message and its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except MaeBenchError as error:
        _explain(error)
    except OSError as error:
        if error.errno not in DISK:
            raise
        _explain(
            InputError(f"{error.filename or 'store'}: {error.strerror}", "free space, or give --store another folder")
        )
    except MemoryError:
        _explain(
            RunFailed("out of memory, before training: images on a coarser grid need less (`--set dataset.spacing`)")
        )
    except KeyboardInterrupt:
        _explain(Interrupted(RESUME))
    except SystemExit as stop:
        if stop.code == Interrupted.exit_code:  # Typer's answer to Ctrl-C
            _explain(Interrupted(RESUME))
        # Typer explained a usage error on stderr; --json owes its reader a document all the same.
        told = getattr(stop.__context__, "format_message", None)
        if stop.code == UsageError.exit_code and "--json" in sys.argv and told is not None:
            _print_error(UsageError.exit_code, told(), [])
        raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _print_error(code: int, message: str, problems: list[str]) -> None:
    if not is_first_process():
        return
    print(json.dumps({"error": {"exit_code": code, "message": message, "problems": problems}}))


def _explain(error: MaeBenchError) -> None:
    if "--json" in sys.argv:
        problems = list(error.problems) if isinstance(error, InputError) else []
        _print_error(error.exit_code, str(error), problems)
    print(f"mae-bench: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
