"""Splits: subjects never cross sides; the published fold is MONAI's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import partition_dataset

from mae_bench.data.split import by_fraction, by_hash, labelled_subset, shuffled_fold
from mae_bench.errors import InputError
from mae_bench.interfaces import RawCase

law = settings(max_examples=40, deadline=None)
subjects = st.lists(st.integers(0, 30), min_size=3, max_size=60)


def cases_of(numbers: list[int]) -> list[RawCase]:
    """One case per number; equal numbers are visits of one subject."""
    return [RawCase(f"case_{place:03d}", f"subject_{number}", ()) for place, number in enumerate(numbers)]


def plain(count: int) -> list[RawCase]:
    return cases_of(list(range(count)))


@law
@given(subjects, st.floats(0.05, 0.3), st.floats(0.05, 0.3))
def test_subjects_never_cross_sides(numbers: list[int], val: float, test: float) -> None:
    cases = cases_of(numbers)
    count = len(set(numbers))
    if count < 3:
        with pytest.raises(InputError, match=f"{count} subjects"):
            by_fraction(cases, val, test)
        return
    split = by_fraction(cases, val, test)
    subject = {case.id: case.subject for case in cases}
    sides = [{subject[case] for case in side} for side in (split.train, split.val, split.test)]
    assert all(sides)
    assert sum(map(len, sides)) == count
    assert sorted(split.train + split.val + split.test) == sorted(subject)
    assert [len(side) for side in sides[1:]] == [max(1, round(val * count)), max(1, round(test * count))]


@law
@given(subjects, st.randoms())
def test_a_split_does_not_depend_on_the_order_of_the_cases(numbers: list[int], random: object) -> None:
    cases = cases_of(numbers)
    if len(set(numbers)) < 3:
        return
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert by_fraction(shuffled, 0.1, 0.25) == by_fraction(cases, 0.1, 0.25)


@law
@given(st.sets(st.text(min_size=1), min_size=1), st.text(min_size=1))
def test_adding_a_name_does_not_reorder_the_others(names: set[str], more: str) -> None:
    before = by_hash(sorted(names))
    after = by_hash([*sorted(names), more])
    assert [name for name in after if name in names] == before
    assert sorted(after) == sorted(names | {more})


@pytest.mark.parametrize("count", [5, 23, 484])
@pytest.mark.parametrize("fold", [0, 3])
def test_the_shuffled_fold_is_that_of_monai(count: int, fold: int) -> None:
    """484 cases, five folds, seed 12345: the split of the paper's code."""
    cases = plain(count)
    parts = partition_dataset([case.id for case in cases], num_partitions=5, shuffle=True, seed=12345)
    split = shuffled_fold(cases, folds=5, fold=fold, seed=12345)
    assert set(split.test) == set(parts[fold])
    assert split.val == split.test
    assert set(split.train) == {case for part in parts[:fold] + parts[fold + 1 :] for case in part}
    assert len(split.train) + len(split.test) == count
    if (count, fold) == (484, 0):
        assert (len(split.train), len(split.test)) == (387, 97)


def test_too_few_cases_for_the_folds() -> None:
    with pytest.raises(InputError, match="4 cases cannot be divided into 5 folds"):
        shuffled_fold(plain(4), folds=5, fold=0, seed=0)


@law
@given(
    st.sets(st.text("abcdef", min_size=1), min_size=1, max_size=40),
    st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
    st.integers(0, 5),
)
def test_labelled_subsets_are_nested(names: set[str], shares: tuple[float, float], seed: int) -> None:
    train = sorted(names)
    few, many = (labelled_subset(train, share, seed) for share in sorted(shares))
    assert set(few) <= set(many) <= names
    assert len(few) == max(1, round(min(shares) * len(names)))
    assert len(set(few)) == len(few)
    assert labelled_subset(train[::-1], max(shares), seed) == many  # whatever the order
    assert labelled_subset(train, 1.0, seed) == tuple(train)


def test_seeds_choose_different_subsets() -> None:
    train = [f"case_{number}" for number in range(40)]
    assert len({labelled_subset(train, 0.25, seed) for seed in range(5)}) == 5
