"""The contract as a pytest plugin.

A test module that says

    pytest_plugins = ["mae_bench.testing.plugin"]
    CONTRACT = {"backbone/mine": {"depth": 2}}

    def test_contract(contract_check):
        contract_check()

has one test per check of the plugin `mine`, with options that make it small. `contract_data` can be overridden to give
a data set without stand-in a folder of files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mae_bench.registry import registry
from mae_bench.testing.contract import Check, DoesNotApply, Subject, checks_of

if TYPE_CHECKING:
    from mae_bench.registry import Registry

SUBJECTS = pytest.StashKey[dict[str, Subject]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per plugin that the module's CONTRACT names, and check."""
    if "contract_check" not in metafunc.fixturenames:
        return
    cases = [
        pytest.param((name, check), id=f"{name}-{check.name}")
        for name in metafunc.module.CONTRACT
        for check in checks_of(name.partition("/")[0])
    ]
    metafunc.parametrize("contract_check", cases, indirect=True)


@pytest.fixture(scope="session")
def contract_registry() -> Registry:
    """Where plugins are looked up: those of this environment."""
    return registry()


@pytest.fixture
def contract_data() -> dict[str, Path]:
    """Folders of files for data sets without a stand-in, by `dataset/name`."""
    return {}


@pytest.fixture
def contract_check(
    request: pytest.FixtureRequest,
    contract_registry: Registry,
    contract_data: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], None]:
    """Runs one check; a check that does not apply skips the test with its reason."""
    pair: tuple[str, Check] = request.param
    name, check = pair
    # One subject for all checks of a plugin, so that a stand-in is written once.
    subjects = request.session.stash.setdefault(SUBJECTS, {})
    if name not in subjects:
        kind, _, plugin = name.partition("/")
        given: dict[str, Any] = request.module.CONTRACT[name]
        folder = tmp_path_factory.mktemp("contract")
        listed = contract_registry.get(kind, plugin)
        subjects[name] = Subject(listed, contract_registry, folder, given, contract_data.get(name))

    def run() -> None:
        try:
            check.run(subjects[name])
        except DoesNotApply as reason:
            pytest.skip(str(reason))

    return run
