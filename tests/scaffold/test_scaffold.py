"""`plugins new` from outside: what it writes installs, is listed, keeps the contract and runs."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from mae_bench.errors import InputError, UsageError
from mae_bench.registry import registry
from mae_bench.scaffold import KINDS, write
from tests.grid.tiny import write_grid
from tests.scaffold.installed import install, mae_bench

ROOT = Path(__file__).parents[2]
RUN = ["run", "--recipe", "smoke", "--store", "store", "--json"]
MNI = ["--dataset", "mni152", "--set", "dataset.subjects=6", "--set", "dataset.spacing=6"]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One new plugin of each kind, `tiny-KIND` in the folder KIND."""
    folder = tmp_path_factory.mktemp("projects")
    for kind in KINDS:
        write(kind, f"tiny-{kind}", folder / kind, registry())
    return folder


@pytest.fixture(scope="module")
def site(projects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four, installed."""
    folder = tmp_path_factory.mktemp("site")
    for kind in KINDS:
        install(projects / kind, folder)
    return folder


def test_nothing_is_left_to_fill_in(projects: Path) -> None:
    files = [path for path in projects.rglob("*") if path.is_file()]
    assert len(files) == 5 * len(KINDS) + 3
    for path in files:
        assert not re.search(r"\$|TODO|FIXME", path.read_text() + str(path)), path
        if path.suffix == ".py":
            tree = ast.parse(path.read_text())
            public = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
            assert all(ast.get_docstring(node) for node in public if not node.name.startswith("__")), path


@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_point_names_the_package(projects: Path, kind: str) -> None:
    about = tomllib.loads((projects / kind / "pyproject.toml").read_text())
    (module,) = about["project"]["entry-points"]["mae_bench"].values()
    assert (projects / kind / "src" / module / "__init__.py").is_file()
    assert about["project"]["dependencies"] == ["mae-bench"]
    assert about["project"]["license"] == "Apache-2.0"


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not in this environment; the lint session has it")
@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_what_is_written_is_in_the_style_of_the_house(projects: Path, command: list[str]) -> None:
    done = subprocess.run(
        ["ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml"), str(projects)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not in this environment")
def test_what_is_written_is_typed(projects: Path, tmp_path: Path) -> None:
    sources = [str(path) for kind in KINDS for path in sorted((projects / kind).rglob("*.py"))]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(projects / "dataset" / "pyproject.toml"),
         "--follow-imports=silent", "--ignore-missing-imports", "--cache-dir", str(tmp_path), *sources],
        capture_output=True, text=True, check=False, cwd=projects,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_all_are_listed(site: Path) -> None:
    answer = mae_bench(site, "plugins", "list", "--json")
    assert answer.returncode == 0, answer.stderr
    listed = {(each["kind"], each["name"], each["dist"]) for each in json.loads(answer.stdout)["plugins"]}
    assert listed >= {(group, f"tiny-{kind}", f"mae-bench-tiny-{kind}") for kind, group in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_the_contract(site: Path, kind: str) -> None:
    answer = mae_bench(site, "plugins", "check", f"tiny-{kind}", "--json")
    document = json.loads(answer.stdout)
    failed = [(check["check"], check["reason"]) for check in document["checks"] if check["ok"] is False]
    assert (answer.returncode, failed, document["ok"]) == (0, [], True)
    assert sum(check["ok"] is True for check in document["checks"]) >= 10


def test_its_own_test_passes(projects: Path, site: Path) -> None:
    """What `pytest` in the new folder says: one test per check, none failed."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True, text=True, check=False, cwd=projects / "dataset", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b\d\d passed", done.stdout), done.stdout


@pytest.mark.slow
def test_all_four_run_as_one_cell(site: Path) -> None:
    cell = ["--dataset", "tiny-dataset", "--demo", "--backbone", "tiny-backbone", "--head", "tiny-head"]
    answer = mae_bench(site, *RUN, *cell, "--pretrain", "tiny-pretraining", "--set", "backbone.depth=2")
    assert answer.returncode == 0, answer.stderr
    record = json.loads(answer.stdout)
    assert record["status"] == "ok"
    assert record["transfer"]["loaded"] == 1.0
    assert {each["dist"] for each in record["plugins"].values()} == {f"mae-bench-tiny-{kind}" for kind in KINDS}


@pytest.mark.slow
def test_it_runs_with_first_party_plugins(site: Path) -> None:
    answer = mae_bench(site, *RUN, *MNI, "--pretrain", "tiny-pretraining", "--noise", "0.3")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["spec"]["pretrain"] == {"name": "tiny-pretraining", "options": {"noise": 0.3}}


@pytest.mark.slow
def test_it_enters_a_grid_file(site: Path, tmp_path: Path) -> None:
    file = write_grid(tmp_path / "grid.toml", '[[sweep]]\npretrain = ["scratch", "tiny-pretraining"]\n')
    answer = mae_bench(site, "grid", "run", str(file), "--store", str(tmp_path / "store"), "--json")
    assert answer.returncode == 0, answer.stderr
    cells = {cell["pretrain"]: cell["state"] for cell in json.loads(answer.stdout)["cells"]}
    assert cells == {"scratch": "done", "tiny-pretraining": "done"}


def test_a_second_distribution_of_one_name_is_refused_with_both_named(projects: Path, tmp_path: Path) -> None:
    """The others can still be used."""
    install(projects / "head", tmp_path)
    other = tmp_path / "other"
    shutil.copytree(projects / "head", other)
    text = (other / "pyproject.toml").read_text()
    text = text.replace("mae-bench-tiny-head", "rival-heads").replace("mae_bench_tiny_head", "rival_heads")
    (other / "pyproject.toml").write_text(text)
    (other / "src" / "mae_bench_tiny_head").rename(other / "src" / "rival_heads")
    install(other, tmp_path)
    for command in (["plugins", "check", "tiny-head"], ["plugins", "info", "tiny-head"]):
        answer = mae_bench(tmp_path, *command)
        assert answer.returncode == 2
        assert "mae-bench-tiny-head 0.1.0 and rival-heads 0.1.0" in answer.stderr
    assert mae_bench(tmp_path, "plugins", "info", "mae").returncode == 0


def test_one_that_raises_at_import_is_listed_with_its_reason_and_breaks_nothing(projects: Path, tmp_path: Path) -> None:
    install(projects / "backbone", tmp_path)
    card = tmp_path / "mae_bench_tiny_backbone" / "__init__.py"
    card.write_text(card.read_text() + '\nraise RuntimeError("wants a licence server")\n')
    answer = mae_bench(tmp_path, "plugins", "list", "--json")
    assert answer.returncode == 0
    document = json.loads(answer.stdout)
    reason = document["unavailable"]["mae-bench-tiny-backbone:tiny-backbone"]
    assert reason == "RuntimeError: wants a licence server"
    assert {"vit", "mae", "brats"} <= {each["name"] for each in document["plugins"]}
    asked = mae_bench(tmp_path, "plugins", "check", "tiny-backbone")
    assert (asked.returncode, "wants a licence server" in asked.stderr) == (2, True)


@pytest.mark.slow
def test_pip_installs_it(projects: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build backend is not in this environment")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(tmp_path), str(projects / "dataset")],
        check=True,
    )
    answer = mae_bench(tmp_path, "plugins", "info", "tiny-dataset", "--json")
    assert json.loads(answer.stdout)["recipes"] == ["demo", "paper", "smoke"]


@pytest.mark.parametrize("name", ["", "Tiny", "1st", "a_b", "a--b", "-a", "a-", "../a", "a b", "a.b"])
def test_what_cannot_be_a_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a plugin"):
        write("head", name, tmp_path / "new", registry())
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused_saying_by_whom(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'vit' is there already, from mae-bench \d"):
        write("backbone", "vit", tmp_path / "new", registry())
    with pytest.raises(UsageError, match="mae_bench_plugins is installed already"):
        write("backbone", "plugins", tmp_path / "new", registry())
    with pytest.raises(UsageError, match="no kind of plugin 'neck'"):
        write("neck", "tiny", tmp_path / "new", registry())
    assert list(tmp_path.iterdir()) == []


def test_only_an_empty_folder_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write("head", "tiny", tmp_path / "empty", registry())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(InputError, match="not an empty folder"):
            write("head", "tiny", tmp_path / name, registry())
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
