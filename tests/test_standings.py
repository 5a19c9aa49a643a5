"""Who is ahead on a board."""

import numpy as np
import pandas as pd
import pytest

from mae_bench.errors import UsageError
from mae_bench.standings import standings

CASES = [f"c{number:02}" for number in range(15)]
Runs = dict[int, pd.DataFrame]


def runs(mean: float, seeds: range, salt: int, cases: list[str] = CASES) -> Runs:
    hard = np.random.default_rng(0).uniform(-0.2, 0.2, len(cases))
    return {
        seed: pd.DataFrame(
            {"case": cases, "dice": mean + hard + np.random.default_rng([salt, seed]).normal(0, 0.02, len(cases))}
        ).assign(hd95=lambda table: 10 - 10 * table["dice"])
        for seed in seeds
    }


BOARD = {"mae": runs(0.6, range(5), 1), "moco": runs(0.6, range(5), 2), "scratch": runs(0.4, range(5), 3)}


def test_the_better_come_first_and_equals_are_tied() -> None:
    found = standings(BOARD, "dice")
    assert {each.label for each in found[:2]} == {"mae", "moco"}
    assert [(each.low, each.high, each.top) for each in found] == [(1, 2, True), (1, 2, True), (3, 3, False)]
    assert [len(each.seeds) for each in found] == [5, 5, 5]
    for each in found:
        assert each.score.low < each.score.value < each.score.high
        expected = np.mean([table["dice"].mean() for table in BOARD[each.label].values()])
        assert each.score.value == pytest.approx(expected)


def test_a_distance_is_better_when_it_is_smaller() -> None:
    assert [each.label for each in standings(BOARD, "hd95")] == [each.label for each in standings(BOARD, "dice")]
    assert [each.low for each in standings(BOARD, "hd95")] == [1, 1, 3]


def test_methods_with_other_seeds_are_compared_on_those_they_share() -> None:
    more = BOARD | {"late": runs(0.4, range(3, 9), 4)}
    found = {each.label: each for each in standings(more, "dice")}
    assert (found["late"].low, found["late"].high) == (3, 4)
    assert (found["mae"].low, found["mae"].high) == (1, 2)


def test_a_hole_leaves_the_case_out_of_the_pair() -> None:
    holed = {seed: table.copy() for seed, table in BOARD["scratch"].items()}
    holed[2].loc[4, "dice"] = np.nan
    found = standings(BOARD | {"scratch": holed}, "dice")
    assert found[-1].label == "scratch"
    assert found[-1].low == 3


def test_one_run_each_is_compared_over_cases() -> None:
    found = standings({name: {0: tables[0]} for name, tables in BOARD.items()}, "dice")
    assert [each.low for each in found] == [1, 1, 3]


def test_one_method_is_first_of_one() -> None:
    (only,) = standings({"mae": BOARD["mae"]}, "dice")
    assert (only.low, only.high) == (1, 1)
    assert standings({}, "dice") == []


def test_other_cases_are_refused() -> None:
    with pytest.raises(UsageError, match="same cases"):
        standings(BOARD | {"other": runs(0.5, range(5), 5, CASES[:-1])}, "dice")


def test_who_shares_no_seed_is_not_ranked() -> None:
    """Nobody was compared with it: it is not tied at the top for that."""
    found = {each.label: each for each in standings(BOARD | {"stranger": runs(0.9, range(20, 22), 5)}, "dice")}
    assert (found["stranger"].low, found["stranger"].high, found["stranger"].top) == (0, 0, False)
    assert found["mae"].low == 1


def test_methods_that_are_almost_the_same_are_not_told_apart() -> None:
    """A last digit that differs in one case: rounding must not make it a certainty."""
    nearly = {seed: table.copy() for seed, table in BOARD["mae"].items()}
    nearly[0].loc[3, "dice"] += 1e-5
    found = {each.label: each for each in standings({"mae": BOARD["mae"], "nearly": nearly}, "dice")}
    assert [each.low for each in found.values()] == [1, 1]
