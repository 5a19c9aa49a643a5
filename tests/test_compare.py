"""What may be claimed: records paired by seed and compared case by case."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mae_bench.compare import compare, draw_comparison, field_of, select
from mae_bench.engine import pictures
from mae_bench.errors import InputError, MaeBenchError, UsageError
from mae_bench.record import ResultRecord
from mae_bench.stats.bootstrap import Scores, two_way_interval
from mae_bench.stats.mixed import difference_test
from mae_bench.store import Store, write_bytes
from tests.test_record import SPLIT, make_record
from tests.test_spec import make_spec

CASES = [f"c{number:02}" for number in range(12)]
MAE: dict[str, Any] = {}
SCRATCH = {"pretrain__name": "scratch", "pretrain__options": {}}

Add = Callable[..., ResultRecord]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def add(store: Store) -> Add:
    def add(
        changes: dict[str, Any], dice: Scores, seed: int = 0, *, hd95: Any = None, order: Any = None, **fields: Any
    ) -> ResultRecord:
        """A finished record with its per-case scores, in `order` in the file."""
        data = {
            "kind": "demo", "fingerprint": "f00d", "split": SPLIT | {"test": CASES}, "labelled": ["a", "b"],
        } | fields.pop("data", {})  # fmt: skip
        rows = [f"{CASES[i]},{dice[i]},{hd95[i] if hd95 is not None else 9.0}\n" for i in order or range(len(dice))]
        text = ("case,dice,hd95\n" + "".join(rows)).replace("nan", "").encode()
        spec = make_spec(seed=seed, **changes)
        cases = {"file": f"{spec.key()}.cases.csv", "sha256": hashlib.sha256(text).hexdigest()}
        record = make_record(spec, data=data, cases=cases, **fields)
        write_bytes(store.cases_path(record.key), text)
        store.write_record(record)
        return record

    return add


def scores(seed: int, shift: float = 0.0) -> np.ndarray:
    hard = np.random.default_rng(0).uniform(0.2, 0.8, len(CASES))
    return hard + shift + np.random.default_rng([7, seed]).normal(0, 0.01, len(CASES))


def test_a_clear_difference_is_claimed(store: Store, add: Add) -> None:
    a, b = [scores(seed, 0.1) for seed in range(3)], [scores(seed + 10) for seed in range(3)]
    for seed in range(3):
        add(MAE, a[seed], seed)
        add(SCRATCH, b[seed], seed)
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    table = np.array(a) - np.array(b)
    expected = difference_test(table)
    assert found.difference == pytest.approx(expected.difference, abs=1e-12)
    assert (found.p, found.bootstrap) == (pytest.approx(expected.p), pytest.approx(two_way_interval(table)))
    assert (found.mean_a, found.mean_b) == pytest.approx((np.mean(a), np.mean(b)))
    assert (found.metric, found.seeds, found.cases, found.differing) == ("dice", 3, 12, ("pretrain",))
    assert found.sentence.startswith("pretrain=mae is better by 0.")
    assert "3 seeds on 12 cases" in found.sentence
    assert "also differ" not in found.sentence
    assert found.to_json()["difference"]["low"] == found.difference.low
    back = compare(store, "pretrain=scratch", "pretrain=mae", (), None)
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert back.sentence.startswith("pretrain=mae is better by 0.")


def test_nothing_is_claimed_that_chance_explains(store: Store, add: Add) -> None:
    for seed in range(2):
        add(MAE, scores(seed, 0.004), seed)
        add(SCRATCH, scores(seed + 10), seed)
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert found.difference.low < 0 < found.difference.high
    assert found.p > 0.05
    assert found.sentence.startswith("no difference in dice may be claimed over 2 seeds on 12 cases, p = ")
    assert "would show it four times in five" in found.sentence


def test_one_seed_gives_no_advice_on_how_many_it_takes(store: Store, add: Add) -> None:
    """What seeds vary cannot be told from one of them."""
    add(MAE, scores(0, 0.001))
    add(SCRATCH, scores(10))
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert found.needed == (None, None)
    assert found.sentence.startswith("no difference in dice may be claimed over 1 seed on 12 cases, p = ")
    assert found.sentence.endswith("; run more seeds: how many it takes cannot be told from one")


def test_a_distance_is_better_when_it_is_smaller(store: Store, add: Add) -> None:
    near = np.linspace(3, 4, len(CASES))
    add(MAE, scores(0), hd95=near)
    add(SCRATCH, scores(0), hd95=near + 2)
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), "hd95")
    assert found.difference == pytest.approx((-2, -2, -2))
    assert found.sentence.startswith("pretrain=mae is better by 2.0000 hd95 over 1 seed on 12 cases, p = ")
    assert "nothing is said of other seeds" in found.sentence


def test_cases_are_paired_by_name_not_by_row(store: Store, add: Add) -> None:
    values = scores(0)
    add(MAE, values + 0.1)
    add(SCRATCH, values, order=list(reversed(range(len(CASES)))))
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert found.difference == pytest.approx((0.1, 0.1, 0.1))


def test_only_shared_seeds_are_compared(store: Store, add: Add) -> None:
    for seed in (0, 1, 2):
        add(MAE, scores(seed, 0.1), seed)
    for seed in (1, 2, 3):
        add(SCRATCH, scores(seed), seed)
    assert compare(store, "pretrain=mae", "pretrain=scratch", (), None).seeds == 2
    with pytest.raises(UsageError, match=r"has seeds \[0\], .* has \[3\]: none in common"):
        compare(store, "pretrain=mae,seed=0", "pretrain=scratch,seed=3", (), None)


def test_the_start_of_a_key_selects_one_record(store: Store, add: Add) -> None:
    a, b = add(MAE, scores(0, 0.1)), add(SCRATCH, scores(0))
    found = compare(store, a.key[:8], b.key, (), None)
    assert found.difference.value == pytest.approx(0.1)


def test_a_failed_record_is_not_compared(store: Store, add: Add) -> None:
    add(MAE, scores(0, 0.1))
    add(SCRATCH, scores(0), status="failed", reason="diverged")
    with pytest.raises(UsageError, match="no finished record matches 'pretrain=scratch'"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), None)


def test_several_records_of_one_seed_are_refused_saying_how_they_differ(store: Store, add: Add) -> None:
    add(MAE, scores(0))
    add({"head__name": "linear"}, scores(0))
    add(SCRATCH, scores(0))
    with pytest.raises(UsageError, match="several records with seed 0: they differ in head; say which"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert compare(store, "pretrain=mae", "pretrain=scratch", ("head=unetr",), None).seeds == 1


@pytest.mark.parametrize(
    ("changes", "fields", "what"),
    [
        ({}, {"data": {"fingerprint": "beef"}}, "images"),
        ({"protocol__name": "paper"}, {}, "protocols"),
        ({}, {"data": {"split": SPLIT | {"test": CASES[1:]}}}, "test cases"),
        ({"labels": 0.5}, {"data": {"labelled": ["a"]}}, "labelled cases"),
    ],
)
def test_records_that_answer_other_questions_are_refused(
    store: Store, add: Add, changes: dict[str, Any], fields: dict[str, Any], what: str
) -> None:
    add(MAE, scores(0))
    add(SCRATCH | changes, scores(0), **fields)
    with pytest.raises(InputError, match=f"cannot be compared: their {what} differ"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), None)


def test_two_things_that_differ_at_once_are_named(store: Store, add: Add) -> None:
    add(MAE, scores(0, 0.1))
    add(SCRATCH | {"recipe__pretrain__lr": 0.5}, scores(0))
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert found.differing == ("pretrain", "recipe")
    assert "also differ in" in found.sentence
    assert "recipe" in found.sentence


def test_two_choices_that_differ_at_once_are_named(store: Store, add: Add) -> None:
    """Asked for a difference of pre-trainings, the answer must say that the backbones differ as well."""
    add(MAE, scores(0, 0.1))
    add(SCRATCH | {"backbone__options": {"size": "base", "patch": [16]}}, scores(0))
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert found.differing == ("backbone", "pretrain")
    assert "also differ in backbone" in found.sentence


def test_a_lost_case_file_is_named(store: Store, add: Add) -> None:
    add(MAE, scores(0))
    record = add(SCRATCH, scores(0))
    store.cases_path(record.key).unlink()
    with pytest.raises(InputError, match=rf"{record.key}\.cases\.csv: missing"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), None)


def test_an_unknown_metric_lists_the_metrics(store: Store, add: Add) -> None:
    add(MAE, scores(0))
    add(SCRATCH, scores(0))
    with pytest.raises(UsageError, match="no metric 'iou'; there are: dice, hd95"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), "iou")


def test_a_case_file_that_lacks_a_test_case_is_refused(store: Store, add: Add) -> None:
    """Rows are scores of the test cases of the record, each once; a torn or edited file must not be paired blindly."""
    add(MAE, scores(0))
    add(SCRATCH, scores(0), order=[1, 0, *range(2, 11), 0])
    with pytest.raises(InputError, match=r"cases\.csv"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), None)


def test_cases_that_cannot_be_scored_leave_the_difference(store: Store, add: Add) -> None:
    a, b = scores(0, 0.1), scores(1)
    a[3] = b[5] = np.nan
    add(MAE, a)
    add(SCRATCH, b)
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert found.difference.value == pytest.approx(np.nanmean(a - b))


def test_a_metric_that_no_case_has_is_an_answer_not_a_traceback(store: Store, add: Add) -> None:
    """HD95 under `ignore`, when one method never predicts the region."""
    add(MAE, scores(0), hd95=[np.nan] * len(CASES))
    add(SCRATCH, scores(0), hd95=[3.0] * len(CASES))
    with pytest.raises(MaeBenchError, match="hd95"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), "hd95")


def test_fields_by_their_short_names() -> None:
    record = make_record()
    expected = {
        "dataset": "brats", "backbone": "vit", "pretrain": "mae", "head": "unetr", "pretrain.ratio": 0.75,
        "backbone.size": "tiny", "protocol": "clean-v1", "recipe": "demo", "kind": "demo", "labels": 1.0, "seed": 0,
        "pretrain_seed": 0, "key": record.key, "status": "ok", "pretrain.none": None,
    }  # fmt: skip
    assert {name: field_of(record, name) for name in expected} == expected
    for name in ("colour", "recipe.lr", "", "data.kind"):
        with pytest.raises(UsageError, match="is no field of a record"):
            field_of(record, name)


def test_fields_of_a_federation() -> None:
    shared = make_record(make_spec(federation={"sites": 4, "partition": "dirichlet"}))
    alone = make_record()
    assert field_of(shared, "federation") == "4 sites"
    assert field_of(shared, "federation.partition") == "dirichlet"
    assert (field_of(alone, "federation"), field_of(alone, "federation.partition")) == ("none", None)
    assert select([shared, alone], ("federation=none",)) == [alone]
    with pytest.raises(UsageError, match="is no field of a record"):
        field_of(shared, "federation.colour")


def test_select() -> None:
    records = [make_record(make_spec(labels=labels, seed=seed)) for labels in (0.1, 1.0) for seed in (0, 1)]
    assert select(records, ()) == records
    assert select(records, ("labels=0.1", "seed=1")) == [records[1]]
    assert select(records, ("dataset=msd",)) == []
    assert select(records, ("labels=1.0",)) == records[2:]
    with pytest.raises(UsageError, match="expected field=value"):
        select(records, ("labels",))


@pytest.mark.parametrize("text", ["1", "1.0", "1.00", "1e0"])
def test_a_number_may_be_written_in_any_way(text: str) -> None:
    """`run --labels 1` leaves labels 1.0, which `--where labels=1` must find."""
    record = make_record()
    assert select([record], (f"labels={text}",)) == [record]


def test_a_case_file_that_was_changed_is_refused(store: Store, add: Add) -> None:
    """The record says which scores it was made from."""
    record = add(MAE, scores(0))
    add(SCRATCH, scores(1))
    path = store.cases_path(record.key)
    path.write_bytes(path.read_bytes().replace(b"0.", b"0.9", 1))
    with pytest.raises(InputError, match="changed since the record was written"):
        compare(store, "pretrain=mae", "pretrain=scratch", (), None)


def test_the_figure_shows_the_most_improved_first_and_the_most_worsened(store: Store, add: Add, tmp_path: Path) -> None:
    """Slices of both runs are needed; cases at both ends are drawn, as the first shared seed has them."""
    change = np.linspace(-0.2, 0.4, len(CASES))
    a, b = add(MAE, scores(0) + change), add(SCRATCH, scores(0))
    found = compare(store, "pretrain=mae", "pretrain=scratch", (), None)
    assert max(found.by_case, key=lambda case: found.by_case[case]) == CASES[-1]
    assert found.by_case[CASES[0]] == pytest.approx(-0.2)
    with pytest.raises(InputError, match="keep slices"):
        draw_comparison(store, found, "A", "B", tmp_path / "figure.png")
    rng = np.random.default_rng(0)
    for record in (a, b):
        slices = [
            pictures.Slice(
                case,
                rng.random((9, 8), np.float32),
                rng.integers(0, 3, (9, 8), np.uint8),
                rng.integers(0, 3, (9, 8), np.uint8),
            )
            for case in CASES
        ]
        path = store.folder("models", record.key) / pictures.SLICES
        pictures.keep_slices(slices, path)
        kept = pictures.read_slices(path)
        assert list(kept) == CASES
        np.testing.assert_array_equal(kept[CASES[3]].prediction, slices[3].prediction)
    draw_comparison(store, found, "A", "B", tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == (1000, 1580)


def test_seeds_of_different_methods_are_not_pooled(store: Store, add: Add) -> None:
    for seed in (0, 1):
        add(SCRATCH, scores(seed), seed)
    add({"pretrain__options": {"ratio": 0.75}}, scores(0), 0)
    add({"pretrain__options": {"ratio": 0.5}}, scores(1), 1)
    with pytest.raises(UsageError, match=r"another method under seed \d than under \d: they differ in pretrain"):
        compare(store, "pretrain=mae", "pretrain=scratch", [], None)


def test_names_of_cases_stay_what_they_are(store: Store, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers with zeros before them, and what looks like a missing value."""
    monkeypatch.setattr("tests.test_compare.CASES", ["001", "NA", "null", "1e3", *CASES[4:]])
    for changes in (MAE, SCRATCH):
        add(changes, scores(0))
    found = compare(store, "pretrain=mae", "pretrain=scratch", [], None)
    assert {"001", "NA", "null", "1e3"} <= set(found.by_case)
