"""The three protocols. Their numbers must never be mixed: they differ in cases, organs and scoring (PAPER 2b)."""

from mae_bench.interfaces import Layout
from mae_bench.task import Preprocessing, Split
from mae_bench.values import digest
from mae_bench_plugins.datasets.btcv import SPACING, WINDOW
from mae_bench_plugins.datasets.btcv.layouts import folder_of, stand_in_spacing
from mae_bench_plugins.datasets.btcv.splits import (
    FOLDS,
    MONAI_TEST,
    SplitProtocol,
    case_id,
    choose,
    fold_sides,
    monai_sides,
    paper_sides,
)


def clean(fold: int, layout: Layout) -> SplitProtocol:
    """Five folds of the 30 cases; three cases of the next fold choose the checkpoint."""
    return SplitProtocol(
        name="clean-v1",
        summary=f"fold {fold} of {FOLDS}: 6 test and 3 validation cases; 13 organs; native space; HD95 in mm; "
        "label-free pre-training crops",
        preprocessing=_preprocessing(layout),
        sides=fold_sides(fold),
        fixed=False,
    )


def paper(layout: Layout) -> SplitProtocol:
    """What the paper's code does (PAPER 2b; D2, D3, D5, D6).

    Its random turns by 90 degrees (probability 0.2) are left out: the engine has none.
    """
    return SplitProtocol(
        name="paper",
        summary="18/12 split of the paper's code, checkpoint chosen on the test cases; mean of 8 of 13 organs; voxel "
        "distances on the prepared grid; pre-training crops drawn with labels. Not as there: labels take turns in "
        "being cropped, every crop, not one in ten, is changed in intensity, and none is turned by 90 degrees",
        preprocessing=_preprocessing(layout),
        pretrain_crops="labels",
        scored_on="prepared",
        distance_unit="voxel",
        empty="ignore",
        selection="test",
        sides=_complete(paper_sides(), layout, "paper"),
    )


def monai(layout: Layout) -> SplitProtocol:
    """24 training cases and 6 that, as in the work that uses this split, choose the checkpoint and are reported.

    The six are read from dataset_0.json where it lies with the data. Without it they are img0035 to img0040, which is
    from memory and not checked against the file. A file that lists others makes a version of its own.
    """
    sides, path = monai_sides(layout.root, folder_of(layout.root)[0])
    source = "as dataset_0.json lists them" if path else "img0035 to img0040 from memory, for want of dataset_0.json"
    known = sides.test == tuple(map(case_id, MONAI_TEST)) and len(sides.train) == 24
    return SplitProtocol(
        name="monai-24-6",
        version=1 if known else int(digest(sides.model_dump())[:8], 16),
        summary=f"{len(sides.train)}/{len(sides.test)} split of MONAI's UNETR, {source}; checkpoint chosen on the "
        "scored cases; 13 organs; native space; HD95 in mm; label-free pre-training crops",
        preprocessing=_preprocessing(layout),
        selection="test",
        sides=_complete(sides, layout, "monai-24-6"),
    )


def _preprocessing(layout: Layout) -> Preprocessing:
    """PAPER 2b: window, foreground, 1.5 x 1.5 x 2 mm. A stand-in has its own, coarser grid."""
    coarse = stand_in_spacing(layout.root)
    return Preprocessing(spacing=SPACING if coarse is None else (coarse,) * 3, intensity=WINDOW)


def _complete(sides: Split, layout: Layout, name: str) -> Split:
    return choose(sides, layout.cases, name, fixed=True, problems=layout.problems)
