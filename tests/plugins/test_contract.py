"""Every first-party plugin keeps the contract that strangers' plugins are held to. They are found, not listed here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mae_bench.registry import registry
from tests.files.decathlon import plain_cases, write_msd
from tests.files.nnunet import write_nnunet

pytest_plugins = ["mae_bench.testing.plugin"]

# Options that are needed, or that make a plugin quicker than its smallest whole numbers or its smoke recipe do.
GIVEN: dict[str, dict[str, Any]] = {
    "dataset/brats": {"demo_spacing": 6},
    "dataset/mni152": {"spacing": 6},
}
OURS = [listed for listed in registry().all() if listed.dist == "mae-bench"]
CONTRACT = {name: GIVEN.get(name, {}) for listed in OURS for name in [f"{listed.kind}/{listed.plugin.name}"]}


@pytest.fixture
def contract_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files for the data sets without a stand-in, by other tools than ours."""
    folder = tmp_path_factory.mktemp("files")
    write_msd(folder / "msd", plain_cases(8))
    write_nnunet(folder / "nnunet", 8)
    return {"dataset/msd": folder / "msd", "dataset/nnunet": folder / "nnunet"}


def test_all_of_them_are_there() -> None:
    """One that cannot be imported would escape the checks."""
    ours = {entry: why for entry, why in registry().unavailable.items() if entry.startswith("mae-bench:")}
    assert ours == {}
    assert {listed.kind for listed in OURS} == {"dataset", "backbone", "pretrain", "head"}


def test_contract(contract_check: Callable[[], None]) -> None:
    """One check of one plugin."""
    contract_check()
