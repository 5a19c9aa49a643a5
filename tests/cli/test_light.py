"""Commands that answer at once: without torch, with one JSON document, and with the exit codes of the contract."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(sys.executable).with_name("mae-bench")
HEAVY = ("torch", "timm", "monai", "transformers", "accelerate", "sklearn", "nilearn")
LIGHT = [
    ["--help"],
    ["run", "--help"],
    ["data", "--help"],
    ["plugins", "list", "--json"],
    ["data", "list", "--json"],
    ["plugins", "info", "mae", "--json"],
    ["data", "status", "brats", "--json"],
    ["results", "list", "--json"],
]
RUN = ["run", "--dataset", "brats", "--pretrain", "mae"]

# Runs the command line in this process and says at its end which heavy packages were imported.
PROBE = f"""
import sys
sys.argv[0] = "mae-bench"
from mae_bench.cli import main
try:
    main()
finally:
    print("imported:", *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def call(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAE_BENCH")}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60,
        env=kept | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"} | environment,
    )  # fmt: skip


def mae_bench(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command."""
    return call([str(SCRIPT), *arguments], folder, **environment)


def document(answer: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document on stdout."""
    return json.loads(answer.stdout)


def no_traceback(answer: subprocess.CompletedProcess[str]) -> None:
    assert "Traceback" not in answer.stderr + answer.stdout


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_never_import_torch(tmp_path: Path, arguments: list[str]) -> None:
    answer = call([sys.executable, "-c", PROBE, *arguments], tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.splitlines() == ["imported:"]
    if "--json" in arguments:
        document(answer)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_answers(tmp_path: Path) -> None:
    answer = mae_bench(tmp_path, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    for name in ("run", "data", "plugins", "results", "show", "doctor"):
        assert name in answer.stdout


def test_plugins_list(tmp_path: Path) -> None:
    answer = mae_bench(tmp_path, "plugins", "list", "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    plugins = document(answer)["plugins"]
    found = {(plugin["kind"], plugin["name"]) for plugin in plugins}
    assert found >= {
        ("dataset", "brats"), ("dataset", "mni152"), ("dataset", "msd"), ("backbone", "vit"), ("pretrain", "mae"),
        ("pretrain", "scratch"), ("head", "unetr"), ("head", "linear"), ("head", "classifier"),
    }  # fmt: skip
    ours = [plugin for plugin in plugins if plugin["dist"] == "mae-bench"]
    assert {plugin["version"] for plugin in ours} == {importlib.metadata.version("mae-bench")}
    assert all(plugin["summary"] for plugin in plugins)


def test_plugins_info(tmp_path: Path) -> None:
    found = document(mae_bench(tmp_path, "plugins", "info", "mae", "--json"))
    assert (found["kind"], found["name"]) == ("pretrain", "mae")
    options = {option["name"]: option for option in found["options"]}
    assert options["ratio"]["default"] == 0.75
    assert "> 0" in options["ratio"]["type"]
    assert "< 1" in options["ratio"]["type"]
    assert all(option["description"] for option in options.values())
    listed = document(mae_bench(tmp_path, "plugins", "info", "vit", "--json"))["options"]
    assert "tiny" in next(option for option in listed if option["name"] == "size")["type"]


def test_data_list_and_status(tmp_path: Path) -> None:
    listed = {each["name"]: each for each in document(mae_bench(tmp_path, "data", "list", "--json"))}
    assert set(listed) >= {"brats", "mni152", "msd"}
    assert listed["mni152"]["builtin"] is True
    assert all(each["licence"] and each["citation"] and each["obtain"] for each in listed.values())
    status = document(mae_bench(tmp_path, "data", "status", "brats", "--json"))
    assert "CC-BY-SA" in status["card"]["licence"]
    assert "folder" not in status


def test_tables_show_the_same(tmp_path: Path) -> None:
    answer = mae_bench(tmp_path, "plugins", "list")
    assert answer.returncode == 0
    for name in ("mni152", "brats", "vit", "mae", "unetr"):
        assert name in answer.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["walk"],
        ["plugins", "list", "--bogus"],
        ["plugins", "fetch"],
        ["plugins", "info", "maee"],
        ["data", "status", "bratz"],
        ["run", "--dataset", "brats"],
        ["run", "--dataset", "bratz", "--pretrain", "mae"],
        [*RUN, "--rotio", "0.5"],
        [*RUN, "--set", "pretrain.rate=1"],
        [*RUN, "--set", "lr"],
        [*RUN, "--seed", "-1"],
        [*RUN, "--labels", "0"],
        [*RUN, "--labels", "2"],
        [*RUN, "--ratio", "0.5", "--ratio", "0.6"],
        [*RUN, "stray"],
        [*RUN, "--recipe", "quick"],
        [*RUN, "--head", "classifier"],
        [*RUN, "--demo", "--data", "."],
        ["results", "compare", "pretrain=mae", "pretrain=scratch"],
        ["results", "list", "--where", "dataset"],
        ["results", "show", "f00d"],
        ["show", "f00d"],
    ],
    ids=" ".join,
)
def test_a_command_that_names_what_does_not_exist_exits_with_2(tmp_path: Path, arguments: list[str]) -> None:
    answer = mae_bench(tmp_path, *arguments)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr
    assert answer.stdout == ""
    no_traceback(answer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["plugins", "list", "--bogus"], ["walk"], [*RUN, "--seed", "x"], ["plugins", "info", "maee"]],
    ids=" ".join,
)
def test_a_usage_error_is_a_json_document_too(tmp_path: Path, arguments: list[str]) -> None:
    """DESIGN 3: with --json, exactly one JSON document on stdout."""
    answer = mae_bench(tmp_path, *arguments, "--json")
    assert answer.returncode == 2
    assert document(answer)["error"]["exit_code"] == 2


def test_a_value_out_of_bounds_names_the_option(tmp_path: Path) -> None:
    for place in (["--ratio", "7"], ["--ratio=7"], ["--set", "pretrain.ratio=7"]):
        answer = mae_bench(tmp_path, *RUN, *place)
        assert answer.returncode == 2
        assert "ratio" in answer.stderr
        assert "less than 1" in answer.stderr
        no_traceback(answer)


def test_an_unknown_flag_lists_the_flags(tmp_path: Path) -> None:
    answer = mae_bench(tmp_path, *RUN, "--rotio", "0.5")
    assert "--rotio" in answer.stderr
    assert "--ratio (mae)" in answer.stderr


def test_without_data_it_says_where_to_get_them(tmp_path: Path) -> None:
    answer = mae_bench(tmp_path, *RUN)
    assert (answer.returncode, answer.stdout) == (3, "")
    for words in ("medicaldecathlon.com", "licence", "CC-BY-SA 4.0", "run --dataset brats --data DIR", "--demo"):
        assert words in answer.stderr
    no_traceback(answer)
    with_json = mae_bench(tmp_path, *RUN, "--json")
    error = document(with_json)["error"]
    assert (with_json.returncode, error["exit_code"]) == (3, 3)
    assert "CC-BY-SA 4.0" in error["message"]
    assert error["problems"] == []


@pytest.mark.parametrize(
    "command", [RUN, *(["data", verb, "brats"] for verb in ("status", "verify", "prepare"))], ids=" ".join
)
def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, command: list[str]) -> None:
    answer = mae_bench(tmp_path, *command, "--data", "no-such-folder", "--json")
    assert answer.returncode == 3
    assert "no-such-folder" in document(answer)["error"]["message"]
    no_traceback(answer)


def test_a_folder_of_something_else_is_explained(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"meow")
    answer = mae_bench(tmp_path, *RUN, "--data", "photos")
    assert answer.returncode == 3
    assert "photos" in answer.stderr
    no_traceback(answer)


def test_an_empty_store_lists_nothing(tmp_path: Path) -> None:
    assert document(mae_bench(tmp_path, "results", "list", "--store", "none", "--json")) == []
    assert not (tmp_path / "none").exists()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "store" / "records").mkdir(parents=True)
    (tmp_path / "store" / "records" / "f00d.json").write_text("{")
    answer = mae_bench(tmp_path, "results", "list", "--json", MAE_BENCH_STORE="store")
    assert answer.returncode == 3
    assert "f00d.json" in document(answer)["error"]["message"]
    no_traceback(answer)


HEAD = """
from mae_bench import hookimpl
from mae_bench.values import Options
class Head:
    name, summary = "swin", "a head from outside"
    Options = Options
    def provides(self, options): return frozenset()
    def needs(self, options): return frozenset()
@hookimpl
def {hook}():
    return [Head()]
"""


def install(site: Path, dist: str, code: str) -> None:
    """A distribution with one module, as pip would leave it."""
    info = site / f"{dist}-1.2.dist-info"
    info.mkdir(parents=True)
    (site / f"{dist}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[mae_bench]\n{dist} = {dist}\n")


def test_a_stranger_and_a_broken_plugin_are_listed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "outside", HEAD.format(hook="mae_bench_heads"))
    install(site, "broken", "raise RuntimeError('no luck')")
    found = document(mae_bench(tmp_path, "plugins", "list", "--json", PYTHONPATH=str(site)))
    (listed,) = (plugin for plugin in found["plugins"] if plugin["name"] == "swin")
    assert (listed["kind"], listed["dist"], listed["version"]) == ("head", "outside", "1.2")
    assert found["unavailable"] == {"broken:broken": "RuntimeError: no luck"}


def test_a_name_claimed_twice_takes_no_other_command_down(tmp_path: Path) -> None:
    """Only whoever asks for that name is told; lists name both."""
    site = tmp_path / "site"
    card = "from types import SimpleNamespace\n" + HEAD.format(hook="mae_bench_datasets").replace(
        "    Options = Options\n",
        "    Options = Options\n    builtin = False\n"
        "    from mae_bench.interfaces import DatasetCard\n"
        "    card = DatasetCard(title='t', licence='l', citation='c', obtain='o', layout='y')\n",
    )
    for dist in ("first_site", "second_site"):
        install(site, dist, card)
    listed = document(mae_bench(tmp_path, "plugins", "list", "--json", PYTHONPATH=str(site)))["plugins"]
    assert [plugin["dist"] for plugin in listed if plugin["name"] == "swin"] == ["first_site", "second_site"]
    asked = mae_bench(tmp_path, "data", "status", "swin", PYTHONPATH=str(site))
    assert asked.returncode == 2
    assert "first_site 1.2 and second_site 1.2" in asked.stderr
    others = mae_bench(tmp_path, "data", "list", "--json", PYTHONPATH=str(site))
    assert others.returncode == 0, others.stderr
    assert {"brats", "mni152"} <= {each["name"] for each in document(others)}
