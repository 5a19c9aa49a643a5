"""Checks of this project: `nox` runs them all. They share one environment; `wheel` gets a clean one of its own."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"  # uv does not look where pip finds a local torch
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "install", "layering", "types", "docs", "tests", "wheel"]

HERE = Path(__file__).parent
GROUPS = ("test", "types", "layering")


def shared_python() -> str:
    """Interpreter of the environment that `install` made: an environment with torch takes six gigabytes."""
    return str(HERE / ".nox" / "install" / "bin" / "python")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, by ruff."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def install(session: nox.Session) -> None:
    """Make the environment that the next checks share; `wheel` tries the package as users get it."""
    session.install(
        "-e", ".[federated,ray]", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *GROUPS)
    )


@nox.session(venv_backend="none", requires=["install"])
def layering(session: nox.Session) -> None:
    """Imports point one way, by import-linter."""
    session.run(str(Path(shared_python()).with_name("lint-imports")), external=True)


@nox.session(venv_backend="none", requires=["install"])
def types(session: nox.Session) -> None:
    """Types, by mypy in strict mode."""
    session.run(shared_python(), "-m", "mypy", external=True)


@nox.session(venv_backend="none", requires=["install"])
def docs(session: nox.Session) -> None:
    """What the README shows of the command line is what the command line prints."""
    session.run(shared_python(), "-m", "pytest", "tests/test_readme.py", *session.posargs, external=True)


@nox.session(venv_backend="none", requires=["install"])
def tests(session: nox.Session) -> None:
    """Everything under tests/."""
    session.run(shared_python(), "-m", "pytest", *session.posargs, external=True)


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """Build, then run one cell from the wheel alone, in an environment with nothing else."""
    session.install("build", "twine")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), str(HERE))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    session.install(str(next(dist.glob("*.whl"))))
    session.chdir(session.create_tmp())
    session.run("mae-bench", "plugins", "list", "--json")
    session.run(
        "mae-bench", "run", "--dataset", "brats", "--demo", "--pretrain", "mae", "--ratio", "0.75", "--recipe", "smoke",
        "--set", "dataset.subjects=6", "--set", "dataset.demo_spacing=6", "--store", "store", "--json",
    )  # fmt: skip


@nox.session
def speed(session: nox.Session) -> None:
    """Benchmarks beside peers from the package index; not among the default checks, since machines are noisy."""
    session.install(
        ".[federated,ray]", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "speed")
    )
    session.run("pytest", "benchmarks/speed", "-s", "--benchmark-disable-gc", *session.posargs)
