"""Batches: pure functions of (seed, step), divided among ranks, with the content of the arrays."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_bench.data.augment import Augmentation
from mae_bench.data.crops import Batch, Crops
from mae_bench.data.prepared import Prepared
from mae_bench.errors import UsageError
from tests.files.prepared import write_and_prepare

law = settings(max_examples=20, deadline=None)
IDS = tuple(f"case_{number:02d}" for number in range(5))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Five cases of two channels."""
    return write_and_prepare(tmp_path_factory.mktemp("crops"), 5, (16, 15, 17))


@pytest.fixture(scope="module")
def crops(prepared: Prepared) -> Crops:
    return Crops(prepared, IDS, roi=(6, 7, 8), batch=4, crops=2, seed=3, labelled_share=0.5, with_labels=True)


def same(one: Batch, other: Batch) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def joined(parts: list[Batch]) -> Batch:
    """Items of several ranks, in the order of the batch: rank 0's first, rank 1's first, ..., rank 0's second, ..."""
    columns = []
    for column in zip(*parts, strict=True):
        if column[0] is None:
            columns.append(None)
            continue
        items = []
        longest = max(len(part) for part in column)
        for place in range(0, longest, 2):  # two crops per item
            items += [part[place : place + 2] for part in column if place < len(part)]
        columns.append(np.concatenate(items))
    return Batch(*columns)


FLIPPED = Augmentation(axes=(0, 1, 2), flip=0.5, intensity=0.1)
RESIZED = Augmentation(axes=(1,), flip=0.5, area=(0.1, 0.8), rotate=15.0)


@law
@given(
    st.integers(0, 1000), st.integers(0, 2**31), st.sampled_from([Augmentation(), FLIPPED, RESIZED]), st.integers(1, 2)
)
def test_a_batch_is_a_pure_function_of_seed_and_step(
    crops: Crops, step: int, seed: int, augmentation: Augmentation, views: int
) -> None:
    """Whatever was drawn before, by whatever object."""
    one = replace(crops, seed=seed, augmentation=augmentation, views=views)
    other = replace(crops, seed=seed, augmentation=augmentation, views=views)
    first = one(step)
    other(step + 1)
    other(0)
    assert same(other(step), first)
    assert same(one(step), first)
    several = () if views == 1 else (views,)
    assert first.images.shape == (8, *several, 2, 6, 7, 8)
    assert first.images.dtype == np.float16
    assert first.labels is not None
    assert first.labels.shape == (8, *several, 6, 7, 8)
    assert (first.gain is None) == (augmentation.intensity == 0)
    assert first.labels.dtype == np.uint8
    assert first.findings is None
    assert np.isfinite(first.images).all()


def test_seeds_steps_and_items_differ(crops: Crops) -> None:
    first = crops(0)
    assert not same(first, crops(1))
    assert not same(first, replace(crops, seed=4)(0))
    assert len({image.tobytes() for image in first.images}) == len(first.images)


@law
@given(st.integers(0, 100), st.integers(1, 4), st.integers(4, 7))
def test_ranks_partition_the_batch(crops: Crops, step: int, world: int, batch: int) -> None:
    """However many processes share it, the batch is the same."""
    whole = replace(crops, batch=batch * world, augmentation=FLIPPED)
    parts = [replace(whole, rank=rank, world=world)(step) for rank in range(world)]
    assert same(joined(parts), whole(step))


def test_a_batch_that_ranks_cannot_share_is_refused(crops: Crops) -> None:
    """Gradients are averaged with equal weights, so the batch must divide."""
    with pytest.raises(UsageError, match="a batch of 1 cases cannot be shared equally by 2 processes"):
        replace(crops, batch=1, rank=1, world=2)


@law
@given(st.integers(1, 9), st.integers(0, 20), st.integers(0, 100))
def test_every_epoch_shows_every_case_once(crops: Crops, batch: int, epoch: int, seed: int) -> None:
    crops = replace(crops, batch=batch, seed=seed)
    places = range(epoch * len(IDS), (epoch + 1) * len(IDS))
    assert sorted(crops.case_id(*divmod(place, batch)) for place in places) == sorted(IDS)


def test_epochs_are_ordered_differently(crops: Crops) -> None:
    orders = {tuple(crops.case_id(*divmod(epoch * 5 + place, 4)) for place in range(5)) for epoch in range(8)}
    assert len(orders) > 4


def where(prepared: Prepared, case: str, image: np.ndarray) -> list[tuple[int, ...]]:
    """Where in a case a crop of it lies, by looking everywhere."""
    whole = np.asarray(prepared.case(case).image())
    windows = np.lib.stride_tricks.sliding_window_view(whole, image.shape[1:], axis=(1, 2, 3))
    rough = np.argwhere((windows[..., 0, 0, 0] == image[:, 0, 0, 0].reshape(2, 1, 1, 1)).all(axis=0))
    return [tuple(place) for place in rough if np.array_equal(windows[(slice(None), *place)], image)]


def test_image_and_label_are_the_same_place_of_the_case(prepared: Prepared, crops: Crops) -> None:
    batch = crops(2)
    assert batch.labels is not None
    for place, (image, label) in enumerate(zip(batch.images, batch.labels, strict=True)):
        case = crops.case_id(2, place // 2)
        starts = where(prepared, case, image)
        assert starts
        whole = np.asarray(prepared.case(case).label())
        boxes = [
            tuple(slice(begin, begin + size) for begin, size in zip(start, crops.roi, strict=True)) for start in starts
        ]
        assert any(np.array_equal(whole[box], label) for box in boxes)


def test_flips_turn_image_and_label_alike_and_happen_with_their_probability(crops: Crops) -> None:
    plain = crops(1)
    assert plain.labels is not None
    always = replace(crops, augmentation=Augmentation(axes=(0, 2), flip=1.0))(1)
    np.testing.assert_array_equal(always.images, np.flip(plain.images, (2, 4)))
    np.testing.assert_array_equal(always.labels, np.flip(plain.labels, (1, 3)))
    half = replace(crops, crops=1, augmentation=Augmentation(axes=(1,), flip=0.5))
    turned = [
        not np.array_equal(mine, theirs)
        for step in range(25)
        for mine, theirs in zip(half(step).images, replace(half, augmentation=Augmentation())(step).images, strict=True)
    ]
    assert 0.3 < np.mean(turned) < 0.7


def test_gains_are_drawn_within_their_limits_and_leave_the_voxels_to_the_device(crops: Crops) -> None:
    plain, changed = crops(1), replace(crops, augmentation=Augmentation(intensity=0.1))(1)
    np.testing.assert_array_equal(changed.images, plain.images)
    assert changed.gain is not None
    assert changed.gain.shape == (8, 2)
    assert (np.abs(changed.gain - [1, 0]) <= 0.1).all()
    assert len(np.unique(changed.gain)) == 16


def test_views_are_of_one_place_each_augmented_by_itself(prepared: Prepared, crops: Crops) -> None:
    """The first view is the crop that a single view would be; the others lie within a quarter of its size."""
    two = replace(crops, views=2, with_labels=False)
    single = replace(two, views=1)(3)
    batch = two(3)
    for place, (first, second) in enumerate(batch.images):
        case = two.case_id(3, place // 2)
        np.testing.assert_array_equal(first, single.images[place])
        starts = [where(prepared, case, view)[0] for view in (first, second)]
        apart = np.abs(np.subtract(*starts))
        assert (apart <= np.array(crops.roi) // 4 + 1).all()
    assert not np.array_equal(batch.images[:, 0], batch.images[:, 1])


def test_cases_without_a_mask_give_an_empty_one(prepared: Prepared, crops: Crops) -> None:
    cases = [
        facts.model_copy(update={"labelled": name != IDS[0]}).model_dump(mode="json")
        for name, facts in prepared.facts.items()
    ]
    some = replace(
        crops,
        prepared=Prepared(prepared.folder, {"fingerprint": "", "problems": {}, "cases": cases}),
        labelled_share=1.0,
    )
    for step in range(5):
        batch = some(step)
        assert batch.labels is not None
        for place, label in enumerate(batch.labels):
            assert label.any() == (some.case_id(step, place // 2) != IDS[0])


def test_all_crops_show_a_label_when_all_are_drawn_so(crops: Crops) -> None:
    for step in range(5):
        batch = replace(crops, labelled_share=1.0)(step)
        assert batch.labels is not None
        assert batch.labels.reshape(8, -1).any(axis=1).all()


def test_label_free_crops_do_not_look_at_labels(prepared: Prepared, crops: Crops) -> None:
    """Self-supervised batches are the same whether labels exist: nothing of them leaks into pre-training."""
    blind = {
        case: facts.model_copy(
            update={"labelled": False, "points": {"foreground": facts.points["foreground"]}}
        ).model_dump(mode="json")
        for case, facts in prepared.facts.items()
    }
    stripped = Prepared(prepared.folder, {"fingerprint": "", "problems": {}, "cases": list(blind.values())})
    free = replace(crops, labelled_share=0.0, with_labels=False)
    assert same(replace(free, prepared=stripped)(7), free(7))
    assert free(7).labels is None


def test_small_labels_are_drawn_as_often_as_large_ones(prepared: Prepared, crops: Crops) -> None:
    """The value is drawn before the voxel."""
    tiny = replace(crops, roi=(1, 1, 1), batch=5, crops=8, labelled_share=1.0)
    drawn = np.concatenate([tiny(step).labels.ravel() for step in range(6)])  # type: ignore[union-attr]
    assert set(drawn) == {1, 2}
    assert 0.35 < np.mean(drawn == 1) < 0.65


def test_centred_crops_lie_about_the_middle(prepared: Prepared, crops: Crops) -> None:
    centred = replace(crops, centred=True)
    for step in range(3):
        for place, image in enumerate(centred(step).images):
            case = centred.case_id(step, place // 2)
            (start,) = where(prepared, case, image)
            middle = [size // 2 for size in prepared.facts[case].shape]
            offset = np.array(start) + np.array(crops.roi) // 2 - middle
            assert (np.abs(offset) <= 2).all()


def test_findings_follow_their_case(prepared: Prepared, crops: Crops) -> None:
    cases = [
        facts.model_copy(update={"findings": (float(case[-1]), 1.0)}).model_dump(mode="json")
        for case, facts in prepared.facts.items()
    ]
    told = Prepared(prepared.folder, {"fingerprint": "", "problems": {}, "cases": cases})
    classified = replace(crops, prepared=told, with_labels=False)
    batch = classified(4)
    assert batch.findings is not None
    assert batch.findings.dtype == np.float32
    expected = [[float(classified.case_id(4, place // 2)[-1]), 1.0] for place in range(8)]
    np.testing.assert_array_equal(batch.findings, expected)
