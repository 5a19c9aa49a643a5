"""Numbers of the literature: what is on file is valid, and nothing that was not verified has a value."""

from pathlib import Path
from typing import Any

import pytest

from mae_bench.errors import InputError
from mae_bench.leaderboard.published import MEANING, published_files, read_published
from mae_bench.registry import registry

FILES = published_files(Path(__file__).parents[2] / "leaderboards")
GOOD = """
dataset = "btcv"
title = "BTCV"
[[groups]]
title = "18/12"
protocol = "8 organs"
numbers = [{ method = "UNETR", metric = "Dice, %", value = 78.8, verified = "read", source = "abstract" }]
"""


def test_there_are_files() -> None:
    assert {path.stem for path in FILES} >= {"btcv", "brats", "cxr14"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_valid_and_of_a_data_set_that_there_is(path: Path) -> None:
    found = read_published(path)
    assert found.dataset in registry().names("dataset")
    for group in found.groups:
        for number in group.numbers:
            assert number.verified in MEANING
            assert number.source


def test_the_numbers_of_the_abstract_are_there() -> None:
    """Dice of BTCV and BraTS from scratch and after MAE; mean AUC of ChestX-ray14."""
    values: dict[str, list[Any]] = {
        path.stem: [
            number.value
            for group in read_published(path).groups
            for number in group.numbers
            if "Zhou" in number.method and number.value is not None
        ]
        for path in FILES
    }
    assert values["btcv"] == [83.5, 78.8]
    assert values["brats"] == [78.9, 77.4]
    assert values["cxr14"] == [81.5, 74.5]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('verified = "read"', 'verified = "unverified"', "stays empty"),
        ("value = 78.8, ", "", "stays empty"),
        ('verified = "read"', 'verified = "sure"', "verified"),
        (', source = "abstract"', "", "source"),
        ("78.8", "nan", "value"),
        ("78.8", "1e9", "value"),
        ("numbers = [", "numbers = [[", "TOML"),
        ('"UNETR"', '"UN\\u202eETR"', "U+202E"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "btcv.toml"
    path.write_text(GOOD)
    assert read_published(path).groups[0].numbers[0].value == 78.8
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError, match=r"btcv\.toml") as error:
        read_published(path)
    assert words in str(error.value)
