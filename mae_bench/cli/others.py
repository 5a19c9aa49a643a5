"""Commands that other distributions bring: a Typer app each, by an entry point in the group `mae_bench.commands`."""

from importlib.metadata import EntryPoint, entry_points

import typer

from mae_bench.errors import UsageError

GROUP = "mae_bench.commands"


def mount(app: typer.Typer) -> None:
    """Add them. Their modules must be light: they are imported whenever the command line is."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            app.add_typer(entry.load(), name=entry.name)
        except Exception as error:
            # A stranger's module may fail in any way; the others must still work.
            _explain(app, entry, f"{type(error).__name__}: {error}")


def _explain(app: typer.Typer, entry: EntryPoint, reason: str) -> None:
    """Put a command in the place of one that cannot be had."""

    @app.command(entry.name, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def unavailable() -> None:
        """Not available here; says why."""
        raise UsageError(f"{entry.name} ({entry.dist.name if entry.dist else '?'}) cannot be used: {reason}")
