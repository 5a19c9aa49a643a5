"""Preparing, against nibabel, scipy and closed forms; resuming; full and read-only disks; the way back."""

import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mae_bench.data.geometry import from_ras, orientation_of
from mae_bench.data.prepare import check_all
from mae_bench.data.prepared import POINTS, Prepared
from mae_bench.data.preprocess import apply_preprocessing, crop_centres, normalise, to_native
from mae_bench.data.source import open_data
from mae_bench.engine.evaluate import native_truth, score_case
from mae_bench.engine.predict import label_map
from mae_bench.errors import InputError
from mae_bench.interfaces import RawImage
from mae_bench.store import Store
from mae_bench.task import Intensity, Preprocessing
from mae_bench_plugins.datasets.msd import MSD, MSDOptions
from tests.files.decathlon import Case, plain_cases, write_msd
from tests.files.prepared import prepare_msd

law = settings(max_examples=20, deadline=None)
ZSCORE = Intensity(kind="zscore")
TURNED = ["RAS", "LPS", "PIR", "LAS", "SRA", "ASL"]
STEPS = [(1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (2.0, 2.0, 2.0), (1.0, 1.5, 2.0), (2.0, 1.0, 1.0)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def temporary(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


# --- what is done to a case -------------------------------------------------------------------------------------------


def zscored(image: np.ndarray) -> np.ndarray:
    """Each channel over its non-zero voxels, in float64."""
    found = np.zeros(image.shape)
    for channel, values in enumerate(image.astype(np.float64)):
        inside = values != 0
        found[channel][inside] = (values[inside] - values[inside].mean()) / values[inside].std()
    return found


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("spacing", STEPS)
@pytest.mark.parametrize("channels", [1, 4])
def test_a_case_is_turned_cropped_resampled_and_normalised(
    orientation: str, spacing: tuple[float, float, float], channels: int, tmp_path: Path
) -> None:
    """All steps together, from the file, by nibabel and scipy."""
    case = Case("a", orientation, spacing, dtype="float32")
    write_msd(tmp_path / "task", [case], channels=[f"C{number}" for number in range(channels)])
    prepared = prepare_msd(tmp_path / "task", tmp_path / "store", MSDOptions(spacing=(1.0, 1.0, 1.0)))
    facts = prepared.facts["a"]

    file = nib.as_closest_canonical(nib.load(tmp_path / "task/imagesTr/a.nii.gz"))
    label_file = nib.as_closest_canonical(nib.load(tmp_path / "task/labelsTr/a.nii.gz"))
    image = np.asarray(file.dataobj)
    image = image[None] if image.ndim == 3 else np.moveaxis(image, -1, 0)
    label = np.asarray(label_file.dataobj)
    assert facts.native_shape == image.shape[1:]
    np.testing.assert_allclose(facts.native_spacing, file.header.get_zooms()[:3])

    (box,) = ndimage.find_objects((image != 0).any(axis=0).astype(int))
    assert facts.start == tuple(part.start for part in box)
    assert facts.cropped == tuple(part.stop - part.start for part in box)
    image, label = image[(slice(None), *box)], label[box]

    shape = tuple(int(np.ceil((size - 1) * step - 1e-6)) + 1 for size, step in zip(facts.cropped, spacing, strict=True))
    assert facts.shape == shape
    assert facts.spacing == (1.0, 1.0, 1.0)
    index = np.stack(np.meshgrid(*(np.arange(n) / step for n, step in zip(shape, spacing, strict=True)), indexing="ij"))
    image = np.stack([ndimage.map_coordinates(part, index, order=1, mode="nearest") for part in image.astype(float)])
    np.testing.assert_allclose(np.asarray(prepared.case("a").image()), zscored(image), atol=4e-3)

    last = np.array(label.shape).reshape(3, 1, 1, 1) - 1
    nearest = np.minimum(np.ceil(index - 0.5), last).astype(int)  # half-way points go down
    np.testing.assert_array_equal(prepared.case("a").label(), label[tuple(nearest)])


def test_the_native_grid_is_kept_when_it_is_the_target(tmp_path: Path) -> None:
    """Nothing is resampled, not even by rounding, so the label is the file's own."""
    write_msd(tmp_path / "task", [Case("a", "LPI", (0.9765625, 0.9765625, 2.5))])
    prepared = prepare_msd(tmp_path / "task", tmp_path / "store")
    facts = prepared.facts["a"]
    assert facts.shape == facts.cropped
    np.testing.assert_allclose(facts.spacing, facts.native_spacing)
    label = np.asarray(nib.as_closest_canonical(nib.load(tmp_path / "task/labelsTr/a.nii.gz")).dataobj)
    box = tuple(slice(begin, begin + size) for begin, size in zip(facts.start, facts.cropped, strict=True))
    np.testing.assert_array_equal(prepared.case("a").label(), label[box])


def test_a_window_is_clipped_to_zero_and_one(tmp_path: Path) -> None:
    """CT: air below the window is outside the foreground."""
    truth = write_msd(tmp_path / "task", [Case("a", dtype="int16")])["a"]
    prepared = prepare_msd(tmp_path / "task", tmp_path / "store", MSDOptions(intensity="window", low=100, high=600))
    facts = prepared.facts["a"]
    (box,) = ndimage.find_objects((truth.image[0] > 100).astype(int))
    assert facts.start == tuple(part.start for part in box)
    expected = np.clip((truth.image[0][box] - 100.0) / 500, 0, 1)
    np.testing.assert_allclose(np.asarray(prepared.case("a").image())[0], expected, atol=1e-3)


@law
@given(st.integers(1, 3), st.floats(1e-3, 1e4), st.floats(-1e4, 1e4), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
def test_zscore_is_that_of_float64(channels: int, scale: float, shift: float, air: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = (rng.standard_normal((channels, 5, 6, 7)) * scale + shift).astype(np.float32)
    image[:, rng.random((5, 6, 7)) < air] = 0
    if any(len(values[values != 0]) < 2 for values in image):
        return
    expected = zscored(image)
    normalise(image, ZSCORE)
    # What float32 itself can tell apart at this distance from zero.
    np.testing.assert_allclose(image, expected, atol=1e-4 + 1e-6 * abs(shift) / scale)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1.0, 1e6])
def test_the_unit_of_the_image_does_not_matter(scale: float) -> None:
    """Diffusivities in m^2/s are of the order of 1e-9; z-scores have no unit."""
    image = np.random.default_rng(0).random((1, 5, 6, 7)).astype(np.float32) + 0.5
    expected = zscored(image)
    scaled = image * np.float32(scale)
    normalise(scaled, ZSCORE)
    np.testing.assert_allclose(scaled, expected, atol=1e-3)


def test_without_cropping_the_whole_image_is_kept() -> None:
    image = np.zeros((1, 5, 6, 7), np.int16)
    image[0, 2:4, 2:4, 2:4] = np.arange(8).reshape(2, 2, 2) + 1
    raw = RawImage(image, None, np.eye(4), None, "")
    found, label, facts = apply_preprocessing(raw, Preprocessing(intensity=ZSCORE, crop_to_foreground=False))
    assert found.shape == (1, 5, 6, 7)
    assert label is None
    assert facts["start"] == (0, 0, 0)
    assert (found[image == 0] == 0).all()


def test_many_voxels_are_sampled_the_same_way_every_time() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1, 20, 20, 20)).astype(np.float32) + 1
    label = np.zeros((20, 20, 20), np.uint8)
    label[:, :, :10] = 3
    points, ranges = crop_centres(image, label, "a")
    again, _ = crop_centres(image, label, "a")
    other, _ = crop_centres(image, label, "b")
    np.testing.assert_array_equal(points, again)
    assert not np.array_equal(points, other)
    assert ranges == {"foreground": (0, POINTS), "3": (POINTS, 2 * POINTS - 96)}


# --- the way back -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.5 warns of itself
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("count", [2, 8])
def test_a_perfect_prediction_scores_perfectly(channels: int, dtype: str, count: int, tmp_path: Path) -> None:
    """The prepared label, as probabilities, brought back to each file's own grid, is the file's label.

    One data set holds cases of several orientations and spacings.
    """
    cases = [
        Case(f"case_{number}", TURNED[number % len(TURNED)], spacing, dtype=dtype, label_dtype=dtype, seed=number)
        for number, spacing in enumerate([*STEPS, STEPS[0]])
    ]
    labels = {value: f"part {value}" for value in range(1, count + 1)}
    root = tmp_path / "task"
    truths = write_msd(root, cases, channels=[f"C{number}" for number in range(channels)], labels=labels)
    dataset = MSD()
    data = open_data(dataset, MSDOptions(), Store(tmp_path / "store"), data=root, demo=False, protocol=None)
    assert data.protocol.preprocessing.spacing == (1.0, 1.0, 1.0)
    assert data.task.outputs == count + 1
    for case in data.layout.cases:
        facts = data.prepared.facts[case.id]
        label = np.asarray(data.prepared.case(case.id).label())
        hot = (label == np.arange(count + 1).reshape(-1, 1, 1, 1)).astype(np.float32)
        painted = label_map(hot, data.task, facts)
        np.testing.assert_array_equal(painted, truths[case.id].label)
        truth = native_truth(dataset, case, root)
        scores = score_case(painted, truth, data.task, data.protocol, facts)
        for region in data.task.regions:
            assert scores[f"dice/{region.name}"] == 1
            assert scores[f"hd95/{region.name}"] == 0
        assert (scores["dice"], scores["hd95"]) == (1, 0)
        file = nib.load(root / "labelsTr" / f"{case.id}.nii.gz")
        native = from_ras(painted, orientation_of(np.array(facts.affine)))
        np.testing.assert_array_equal(native, np.asarray(file.dataobj))


def test_predictions_are_zero_outside_what_was_prepared(tmp_path: Path) -> None:
    write_msd(tmp_path / "task", [Case("a", "LPS", (2.0, 2.0, 2.0))])
    prepared = prepare_msd(tmp_path / "task", tmp_path / "store", MSDOptions(spacing=(1.0, 1.0, 1.0)))
    facts = prepared.facts["a"]
    whole = to_native(np.ones((3, *facts.shape), np.float32), facts)
    assert whole.shape == (3, *facts.native_shape)
    inside = np.zeros(facts.native_shape, bool)
    box = tuple(slice(begin, begin + size) for begin, size in zip(facts.start, facts.cropped, strict=True))
    inside[box] = True
    assert (whole[:, inside] == 1).all()
    assert (whole[:, ~inside] == 0).all()


# --- addresses --------------------------------------------------------------------------------------------------------


def test_what_is_prepared_is_not_prepared_again(tmp_path: Path) -> None:
    write_msd(tmp_path / "task", plain_cases(3))
    first = prepare_msd(tmp_path / "task", tmp_path / "store")
    calls: list[tuple[int, int]] = []
    second = prepare_msd(
        tmp_path / "task", tmp_path / "store", progress=lambda done, total: calls.append((done, total))
    )
    assert calls == []
    assert second.folder == first.folder
    assert second.facts == first.facts


def test_the_fingerprint_is_of_the_contents_not_of_the_place(tmp_path: Path) -> None:
    write_msd(tmp_path / "one", plain_cases(3))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (prepare_msd(tmp_path / name, tmp_path / "store") for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    for folder in ("imagesTr", "labelsTr"):
        shutil.copy(tmp_path / "two" / folder / "case_00.nii.gz", tmp_path / "two" / folder / "case_01.nii.gz")
    changed = prepare_msd(tmp_path / "two", tmp_path / "store")
    assert changed.fingerprint != one.fingerprint


@pytest.mark.parametrize(
    "options", [{"spacing": (2, 2, 2)}, {"intensity": "window"}, {"intensity": "window", "low": 0.0}]
)
def test_other_options_are_prepared_elsewhere(options: dict[str, Any], tmp_path: Path) -> None:
    write_msd(tmp_path / "task", plain_cases(3))
    plain = prepare_msd(tmp_path / "task", tmp_path / "store")
    assert prepare_msd(tmp_path / "task", tmp_path / "store", MSDOptions(**options)).folder != plain.folder


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    write_msd(tmp_path / "task", plain_cases(4))
    calls: list[tuple[int, int]] = []
    prepare_msd(tmp_path / "task", tmp_path / "store", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_changes_nothing(workers: int, tmp_path: Path) -> None:
    write_msd(tmp_path / "task", plain_cases(4))
    prepare_msd(tmp_path / "task", tmp_path / "one", workers=workers)
    prepare_msd(tmp_path / "task", tmp_path / "two")
    assert contents(tmp_path / "one" / "prepared") == contents(tmp_path / "two" / "prepared")


def test_two_at_once_prepare_only_once(tmp_path: Path) -> None:
    """The second waits for the first, then finds it done."""
    write_msd(tmp_path / "task", plain_cases(4))
    calls: list[int] = []
    found: list[Prepared] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                prepare_msd(tmp_path / "task", tmp_path / "store", progress=lambda done, total: calls.append(done))
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1, 2, 3, 4]
    assert found[0].facts == found[1].facts


def test_checking_all_stores_nothing(tmp_path: Path) -> None:
    root = tmp_path / "task"
    write_msd(root, plain_cases(4))
    (root / "imagesTr/case_01.nii.gz").write_bytes(b"")
    (root / "labelsTr/case_02.nii.gz").unlink()
    dataset, options = MSD(), MSDOptions()
    layout = dataset.scan(options, root)
    task = dataset.task(options, layout, dataset.protocols(options, layout)["clean-v1"]())
    before = contents(tmp_path)
    problems = check_all(dataset, root, layout, task)
    assert set(problems) == {"case_01", "case_02"}
    assert "case_01.nii.gz: empty file" in problems["case_01"]
    assert "labelsTr/case_02.nii.gz" in problems["case_02"]
    assert contents(tmp_path) == before


def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    write_msd(tmp_path / "task", [*plain_cases(2), Case("-rf ~")])
    with pytest.raises(InputError, match=r"-rf ~.*cannot name a folder; rename the file"):
        prepare_msd(tmp_path / "task", tmp_path / "store")


# --- stopped half-way -------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """Stands for a signal that arrives while preparing."""


def stop_after(count: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == count:
            raise Stopped

    return progress


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_run_goes_on_where_it_was(workers: int, tmp_path: Path) -> None:
    """Finished cases are not read again, and the result is that of a run that was never stopped."""
    root, store = tmp_path / "task", tmp_path / "store"
    cases = plain_cases(6)
    write_msd(root, cases)
    prepare_msd(root, tmp_path / "whole")
    with pytest.raises(Stopped):
        prepare_msd(root, store, progress=stop_after(2), workers=workers)
    assert not temporary(store)
    assert not list(store.rglob("stage.json"))
    done = stats(store)
    assert 2 <= len(done) < 6
    for case in done:  # other bytes under the same size and time: reading them again would be noticed
        path = root / "imagesTr" / f"{case}.nii.gz"
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    prepare_msd(root, store)
    again = stats(store)
    assert set(again) == {case.id for case in cases}
    for case, stat in done.items():
        assert (again[case].st_mtime_ns, again[case].st_ino) == (stat.st_mtime_ns, stat.st_ino)
    assert contents(store / "prepared") == contents(tmp_path / "whole" / "prepared")
    assert not temporary(store)


def stats(store: Path) -> dict[str, os.stat_result]:
    """The file of each prepared case: a case prepared anew would be another file."""
    return {json.loads(path.read_text())["id"]: path.stat() for path in store.glob("prepared/cases/*/case.json")}


def inodes(store: Path) -> dict[str, int]:
    return {case: stat.st_ino for case, stat in stats(store).items()}


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    """SIGKILL and power cuts leave temporary folders behind: the run that finishes the stage removes them."""
    root, store = tmp_path / "task", tmp_path / "store"
    write_msd(root, plain_cases(3))
    with pytest.raises(Stopped):
        prepare_msd(root, store, progress=stop_after(1), workers=1)
    (folder,) = (path for path in store.glob("prepared/*") if path.name != "cases")
    (folder / ".case_02.k1lled.tmp").mkdir()
    (folder / ".case_02.k1lled.tmp" / "image.npy").write_bytes(b"half")
    prepare_msd(root, store)
    assert not temporary(store)


def test_good_cases_are_kept_when_others_are_mended(tmp_path: Path) -> None:
    """Preparing hundreds of cases again because one was mended would punish who mends."""
    root, store = tmp_path / "task", tmp_path / "store"
    write_msd(root, plain_cases(4))
    good = (root / "imagesTr/case_02.nii.gz").read_bytes()
    (root / "imagesTr/case_02.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="case_02"):
        prepare_msd(root, store)
    kept = inodes(store)
    (root / "imagesTr/case_02.nii.gz").write_bytes(good)
    prepare_msd(root, store)
    again = inodes(store)
    assert set(again) == {"case_00", "case_01", "case_02", "case_03"}
    assert {case: again[case] for case in kept} == kept


def test_skipping_after_a_refusal_uses_what_was_prepared(tmp_path: Path) -> None:
    root, store = tmp_path / "task", tmp_path / "store"
    write_msd(root, plain_cases(4))
    (root / "imagesTr/case_02.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="case_02"):
        prepare_msd(root, store)
    kept = inodes(store)
    prepared = prepare_msd(root, store, skip_bad=True)
    assert set(prepared.facts) == set(kept) == {"case_00", "case_01", "case_03"}
    assert inodes(store) == kept


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(["-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)])
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(arguments: list[str]) -> None:
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.strip()}")


def test_a_full_disk_is_reported_as_one_and_leaves_nothing_half_written(small_disk: Path, tmp_path: Path) -> None:
    root = tmp_path / "task"
    write_msd(root, plain_cases(6, shape=(24, 24, 24)))
    with pytest.raises(OSError, match="No space left on device") as caught:
        prepare_msd(root, small_disk / "store")
    assert caught.value.errno == errno.ENOSPC
    assert not temporary(small_disk)
    assert not list(small_disk.rglob("stage.json"))
    mount(["-o", "remount,size=20m", str(small_disk)])
    prepare_msd(root, small_disk / "store")
    prepare_msd(root, tmp_path / "roomy")
    assert contents(small_disk / "store" / "prepared") == contents(tmp_path / "roomy" / "prepared")


def test_a_read_only_store_is_reported_as_one(small_disk: Path, tmp_path: Path) -> None:
    root = tmp_path / "task"
    write_msd(root, plain_cases(3))
    mount(["-o", "remount,ro", str(small_disk)])
    with pytest.raises(OSError, match="Read-only file system") as caught:
        prepare_msd(root, small_disk / "store")
    assert caught.value.errno == errno.EROFS
    assert list(small_disk.iterdir()) == []


def test_a_store_that_became_read_only_still_serves_what_it_holds(small_disk: Path, tmp_path: Path) -> None:
    """A shared store is often mounted read-only for those who only read."""
    root = tmp_path / "task"
    write_msd(root, plain_cases(3, shape=(6, 6, 6)))
    first = prepare_msd(root, small_disk / "store")
    mount(["-o", "remount,ro", str(small_disk)])
    assert prepare_msd(root, small_disk / "store").facts == first.facts
