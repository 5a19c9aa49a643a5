"""The contract that every plugin keeps, as checks that anyone can run: `mae-bench plugins check`, or pytest.

Each check is a plain function whose first docstring line is the law it holds a plugin to; it raises `ContractError`
with the reason. Nothing here imports pytest but `mae_bench.testing.plugin`, the pytest plugin.
"""

from mae_bench.testing.contract import Check, ContractError, DoesNotApply, Result, Subject, checks_of, run_checks

__all__ = ["Check", "ContractError", "DoesNotApply", "Result", "Subject", "checks_of", "run_checks"]
