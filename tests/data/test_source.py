"""Where files come from: a folder, or a stand-in; and which protocol."""

from pathlib import Path

import pytest

from mae_bench.data.source import choose_protocol, locate, open_data, write_stand_in
from mae_bench.errors import InputError, UsageError
from mae_bench.store import Store
from mae_bench_plugins.datasets.brats import BraTS, BraTSOptions
from mae_bench_plugins.datasets.mni152 import MNI152, MNI152Options
from mae_bench_plugins.datasets.msd import MSD, MSDOptions
from tests.files.decathlon import plain_cases, write_msd

SMALL = MNI152Options(subjects=6, spacing=6)


def silent(done: int, total: int) -> None:
    """No progress."""


def test_a_folder_is_real_data(tmp_path: Path) -> None:
    assert locate(BraTS(), BraTSOptions(), Store(tmp_path), tmp_path, False, silent) == (tmp_path, "real")


def test_a_folder_and_a_stand_in_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data and --demo exclude each other"):
        locate(BraTS(), BraTSOptions(), Store(tmp_path), tmp_path, True, silent)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such folder"):
        locate(BraTS(), BraTSOptions(), Store(tmp_path), tmp_path / "gone", False, silent)


@pytest.mark.parametrize("dataset", [BraTS(), MSD()], ids=lambda dataset: dataset.name)
def test_without_data_it_is_said_where_to_get_them(dataset: BraTS | MSD, tmp_path: Path) -> None:
    """Never a silent fallback to the stand-in."""
    with pytest.raises(InputError, match="no data given") as caught:
        locate(dataset, dataset.Options(), Store(tmp_path), None, False, silent)
    for says in (dataset.card.obtain, dataset.card.licence, f"--dataset {dataset.name} --data DIR"):
        assert says in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_stand_in_does_not_propose_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        locate(MSD(), MSDOptions(), Store(tmp_path), None, False, silent)
    assert "--dataset msd --demo" not in caught.value.hint


def test_msd_has_no_stand_in(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="msd has no stand-in"):
        locate(MSD(), MSDOptions(), Store(tmp_path), None, True, silent)
    assert not [path for path in tmp_path.rglob("*") if path.name == "files" or path.name.endswith(".tmp")]


def test_a_stand_in_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    calls: list[int] = []
    first = write_stand_in(MNI152(), SMALL, store, lambda done, total: calls.append(done))
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert calls == [1, 2, 3, 4, 5, 6]
    assert write_stand_in(MNI152(), SMALL, store, lambda done, total: calls.append(done)) == first
    assert len(calls) == 6
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == times


def test_other_options_write_another_stand_in(tmp_path: Path) -> None:
    one = write_stand_in(MNI152(), SMALL, Store(tmp_path), silent)
    two = write_stand_in(MNI152(), SMALL.model_copy(update={"subjects": 7}), Store(tmp_path), silent)
    assert one != two
    assert len(list(two.glob("imagesTr/*"))) == 7


def test_a_stopped_stand_in_leaves_nothing(tmp_path: Path) -> None:
    """It is there whole or not at all."""

    def progress(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stand_in(MNI152(), SMALL, Store(tmp_path), progress)
    assert [path for path in (tmp_path / "demo").rglob("*") if path.is_file()] == []
    assert not list(tmp_path.rglob("*.tmp"))
    assert (write_stand_in(MNI152(), SMALL, Store(tmp_path), silent) / "dataset.json").is_file()


def test_builtin_data_need_no_flag(tmp_path: Path) -> None:
    root, kind = locate(MNI152(), SMALL, Store(tmp_path), None, False, silent)
    assert kind == "demo"
    assert (root / "dataset.json").is_file()


def test_protocols_are_chosen_by_name_the_first_is_the_default(tmp_path: Path) -> None:
    write_msd(tmp_path, plain_cases(3), channels=("FLAIR", "T1w", "t1gd", "T2w"), labels={
        1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"
    })  # fmt: skip
    brats, options = BraTS(), BraTSOptions()
    layout = brats.scan(options, tmp_path)
    assert choose_protocol(brats, options, layout, None).name == "clean-v1"
    assert choose_protocol(brats, options, layout, "paper").name == "paper"
    with pytest.raises(UsageError, match="brats has no protocol 'fast'; there are: clean-v1, paper"):
        choose_protocol(brats, options, layout, "fast")


def test_opened_data_hold_all_that_a_run_needs(tmp_path: Path) -> None:
    write_msd(tmp_path / "task", plain_cases(8))
    stages: dict[str, list[tuple[int, int]]] = {}

    def stage(name: str):  # type: ignore[no-untyped-def]
        stages[name] = []
        return lambda done, total: stages[name].append((done, total))

    data = open_data(
        MSD(), MSDOptions(), Store(tmp_path / "store"), data=tmp_path / "task", demo=False, protocol=None, stage=stage
    )
    assert data.kind == "real"
    assert data.root == tmp_path / "task"
    assert data.protocol.name == "clean-v1"
    assert [region.name for region in data.task.regions] == ["inner", "outer"]
    assert set(data.prepared.facts) == {case.id for case in data.layout.cases}
    assert sorted(data.split.train + data.split.val + data.split.test) == sorted(data.prepared.facts)
    assert stages["prepare"][-1] == (8, 8)


def test_the_test_set_does_not_depend_on_where_the_data_lie(tmp_path: Path) -> None:
    splits = []
    for name in ("here", "there"):
        write_msd(tmp_path / name, plain_cases(8))
        store = Store(tmp_path / f"store-{name}")
        splits.append(open_data(MSD(), MSDOptions(), store, data=tmp_path / name, demo=False, protocol=None).split)
    assert splits[0] == splits[1]
