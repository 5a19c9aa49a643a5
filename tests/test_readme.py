"""The README is fresh: its plugin table is the registry's, its commands and flags exist, its files are there.

`python tests/test_readme.py` writes the table anew.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer

from mae_bench.cli import app
from mae_bench.registry import HOOKS, registry
from mae_bench.resolve import FEDERATION

README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(r"(<!-- plugins:.*?-->\n).*?(<!-- /plugins -->)", re.DOTALL)


def plugin_table():
    """The registry as a Markdown table."""
    rows = [
        f"| {listed.kind} | `{listed.plugin.name}` | {listed.plugin.summary} |"
        for listed in registry().all(HOOKS)
        if listed.dist == "mae-bench"
    ]
    return "\n".join(["| kind | name | what it is |", "|---|---|---|", *rows]) + "\n"


def commands():
    """Every `mae-bench` command line in the README's code blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line.split("#")[0].split("&&")[-1].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("mae-bench ")]


def test_plugin_table_is_fresh():
    text = README.read_text()
    assert TABLE.sub(lambda match: match[1] + plugin_table() + match[2], text) == text


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line):
    _, *words = shlex.split(line)
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    plugin_flags = {
        f"--{name.replace('_', '-')}" for listed in registry().all() for name in listed.plugin.Options.model_fields
    }
    plugin_flags |= {f"--{name.replace('_', '-')}" for name in FEDERATION}
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert flags <= known | (plugin_flags if command.name == "run" else set())


def test_files_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing


def test_there_are_commands():
    assert len(commands()) > 8


if __name__ == "__main__":
    README.write_text(TABLE.sub(lambda match: match[1] + plugin_table() + match[2], README.read_text()))
