"""Who is trained on and who is tested: the official lists, and a validation part of the first by patient."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mae_bench.data.split import by_hash
from mae_bench.errors import InputError
from mae_bench.interfaces import RawCase
from mae_bench.task import Split
from mae_bench_plugins.datasets.cxr14.table import LISTS, some

IMAGES = 112_120
PUBLISHED = {"train_val": (86_524, 28_008), "test": (25_596, 2_797)}  # images, patients (PAPER 2a)
VALIDATION = 11_212  # of the 86 524, as medical_mae holds out (PAPER 2a)


@dataclass(frozen=True)
class Radiograph(RawCase):
    """A case, and the official list that names it: `train_val` or `test`."""

    side: str = "train_val"


def check_sides(cases: Sequence[Radiograph]) -> None:
    """Raise InputError when a patient is on both sides, or when a complete set is not divided as published."""
    side: dict[str, str] = {}
    crossing = sorted({case.subject for case in cases if side.setdefault(case.subject, case.side) != case.side})
    if crossing:
        raise InputError(
            f"{' and '.join(LISTS.values())}: {some(crossing, 'patient')} in both",
            "nobody may be trained on and tested: take the official lists",
        )
    if len(cases) != IMAGES:
        return
    images, patients = Counter(case.side for case in cases), Counter(side.values())
    wrong = [
        f"{LISTS[name]}: {images[name]} images of {patients[name]} patients, not {published[0]} of {published[1]}"
        for name, published in PUBLISHED.items()
        if (images[name], patients[name]) != published
    ]
    if wrong:
        raise InputError(f"all {IMAGES} images, but not divided as published", "take the official lists", wrong)


def official_split(cases: Sequence[Radiograph], *, held_out: bool) -> Split:
    """The official lists; `held_out` takes validation patients out of the first, else `val` repeats `test`.

    Raises:
        InputError: nobody to train on or to test.
    """
    first = [case for case in cases if case.side == "train_val"]
    test = tuple(sorted(case.id for case in cases if case.side == "test"))
    if not first or not test:
        raise InputError(f"no image of {LISTS['test' if first else 'train_val']} is among the {len(cases)} usable ones")
    if not held_out:
        return Split(train=tuple(sorted(case.id for case in first)), val=test, test=test)
    chosen = validation_patients(first)
    train = tuple(sorted(case.id for case in first if case.subject not in chosen))
    return Split(train=train, val=tuple(sorted(case.id for case in first if case.subject in chosen)), test=test)


def validation_patients(cases: Sequence[RawCase]) -> frozenset[str]:
    """Patients, in the order of their hashes, whose images together are 11 212 of 86 524, or that share of fewer.

    Whoever has more images than there is room left is passed over, so that later ones fill the count: exactly, where
    there are many patients with one image, as in a complete set. At least one patient is taken.

    Raises:
        InputError: fewer than two patients.
    """
    images = Counter(case.subject for case in cases)
    if len(images) < 2:
        raise InputError(f"{LISTS['train_val']}: {len(images)} patient; training and validation need at least one each")
    room = round(len(cases) * VALIDATION / PUBLISHED["train_val"][0])
    chosen: list[str] = []
    order = by_hash(list(images))
    for patient in order:
        if images[patient] <= room:
            chosen.append(patient)
            room -= images[patient]
    if not chosen:
        chosen = [min(order, key=lambda patient: images[patient])]
    return frozenset(chosen)
