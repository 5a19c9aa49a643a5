"""The command line that runs a record again, from its specification alone."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from mae_bench.spec import RunSpec

PLUGINS = ("dataset", "backbone", "pretrain", "head")


def command_of(spec: RunSpec) -> list[str]:
    """Words of `mae-bench run …`. Every option is given, so that later defaults change nothing.

    Where images and weights lie is not in a specification: DIR stands for the folder of a real data set, and a file
    is given by its name alone.
    """
    words = ["mae-bench", "run"]
    for place in PLUGINS:
        words += [f"--{place}", getattr(spec, place).name]
    words += ["--demo"] if spec.data.kind == "demo" else ["--data", "DIR"]
    words += ["--protocol", spec.protocol.name, "--recipe", spec.recipe.name, "--labels", f"{spec.labels!r}"]
    words += ["--seed", str(spec.seed), "--pretrain-seed", str(spec.pretrain_seed)]
    if spec.data.skipped:
        words.append("--skip-bad")
    for name, value in _settings(spec):
        words += ["--set", f"{name}={_text(value)}"]
    return words


def shell_text(words: list[str]) -> str:
    """The words as a shell reads them, one setting a line. Whatever a word holds, the shell takes it for one word."""
    quoted = [shlex.quote(word) for word in words]
    lines, line = [], quoted[:2]
    for word in quoted[2:]:
        if word.startswith("--") and len(" ".join([*line, word])) > 70:
            lines.append(" ".join(line))
            line = []
        line.append(word)
    return " \\\n  ".join([*lines, " ".join(line)])


def _settings(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    for place in PLUGINS:
        for name, value in sorted(getattr(spec, place).options.items()):
            yield f"{place}.{name}", value
    yield "recipe.roi", spec.recipe.roi
    for stage in ("pretrain", "finetune"):
        for name, value in getattr(spec.recipe, stage).model_dump(mode="json").items():
            # Steps and epochs are two ways to say one thing; the other one follows.
            if name not in ("steps", "epochs") or value is not None:
                yield f"{stage}.{name}", value
    if spec.federation is not None:
        for name, value in spec.federation.model_dump(mode="json").items():
            yield f"federation.{name}", value


def _text(value: Any) -> str:
    """A value as `--set` reads it: JSON, or a bare word where JSON would read nothing else in it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    if isinstance(value, str):
        if value.isidentifier() and value not in ("true", "false", "null", "NaN", "Infinity"):
            return value
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False)
