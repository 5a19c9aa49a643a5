"""`brats`: brain tumours in four MRI contrasts: MSD Task01, and the BraTS 2020, 2021 and 2023 folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.interfaces import DatasetCard, Layout, RawCase, RawImage, Words
from mae_bench.task import Intensity, Preprocessing, Protocol, Region, Split, Task
from mae_bench.values import Options

CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")
SPACING = (1.0, 1.0, 1.0)


class BraTSOptions(Options):
    """Options of `brats`."""

    target: Literal["regions", "survival"] = Field(
        "regions", description="segment the tumour, or order patients by their risk of death"
    )
    subjects: int = Field(47, ge=6, le=2000, description="how many subjects the stand-in (--demo) has")
    demo_spacing: float = Field(3.0, ge=1, le=6, description="voxel size of the stand-in in mm")


class BraTS:
    """Reads the layouts this data has been given out in."""

    name = "brats"
    summary = "brain tumour segmentation and survival: MSD Task01, BraTS 2020, 2021, 2023"
    Options = BraTSOptions
    recipes = Path(__file__).parent / "recipes"
    stand_in = True
    builtin = False
    card = DatasetCard(
        title="Brain tumours in multimodal MRI (MSD Task01_BrainTumour, BraTS 2020, BraTS 2021, BraTS 2023)",
        licence="MSD Task01: CC-BY-SA 4.0. BraTS 2020, 2021 and 2023: terms of each challenge",
        citation="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128, 2022; "
        "Menze et al., BRATS, IEEE TMI 34(10), 2015; Baid et al., arXiv 2107.02314, 2021",
        obtain="Task01_BrainTumour.tar from http://medicaldecathlon.com, unpacked; or BraTS 2021 or 2023 from "
        "synapse.org; "
        "survival times came with BraTS 2020 (www.med.upenn.edu/cbica/brats2020/data.html)",
        layout="Task01_BrainTumour/{dataset.json,imagesTr,labelsTr} or one folder per case with "
        "*_flair/_t1/_t1ce/_t2/_seg (2020, 2021) or *-t2f/-t1n/-t1c/-t2w/-seg (2023) as .nii.gz; for survival beside "
        "them outcomes.csv (case,time,event; days) or, where there is none, BraTS 2020's survival_info.csv",
    )

    def provides(self, options: BraTSOptions) -> Words:
        """Volumes with regions, or with outcomes."""
        return frozenset({"3d", "segmentation" if options.target == "regions" else "survival"})

    def needs(self, options: BraTSOptions) -> Words:
        """A backbone for volumes."""
        return frozenset({"3d"})

    def scan(self, options: BraTSOptions, root: Path) -> Layout:
        """Recognise the layout and list its cases; of survival, those with an outcome, the others as problems."""
        from mae_bench_plugins.datasets.brats.layouts import scan

        layout = scan(root)
        if options.target == "regions":
            return layout
        from mae_bench_plugins.datasets.brats.survival import with_outcomes

        return with_outcomes(layout)

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Read the channels and the label of one case."""
        from mae_bench.data.nifti import read_case

        return read_case(case, root)

    def protocols(self, options: BraTSOptions, layout: Layout) -> Mapping[str, Callable[[], Protocol]]:
        """`clean-v1`; of regions also `paper`, which repeats what the paper's code does (PAPER 4, D1 to D7)."""
        preprocessing = Preprocessing(spacing=SPACING, intensity=Intensity(kind="zscore"))
        if _is_demo(layout):
            preprocessing = preprocessing.model_copy(update={"spacing": None})
        if options.target == "survival":
            survival = Protocol(
                name="clean-v1",
                summary="10 % validation and 25 % test subjects by hash; concordance of the risk read from the middle "
                "of the brain; label-free pre-training crops",
                preprocessing=preprocessing,
            )
            return {"clean-v1": lambda: survival}
        clean = Protocol(
            name="clean-v1",
            summary="10 % validation and 25 % test subjects by hash; enhancing tumour is label 3 of MSD; native space; "
            "HD95 in mm; label-free pre-training crops",
            preprocessing=preprocessing,
        )
        paper = Protocol(
            name="paper",
            summary="387/97 fold of the paper's code, checkpoint chosen on the test cases; `ET` is MSD label 2, the "
            "non-enhancing core; voxel distances on the prepared grid; pre-training crops drawn with labels. Not as "
            "there: labels take turns in being cropped, and every crop, not one in ten, is changed in intensity",
            preprocessing=preprocessing,
            pretrain_crops="labels",
            crop_zscore=True,
            scored_on="prepared",
            distance_unit="voxel",
            empty="ignore",
            selection="test",
        )
        return {"clean-v1": lambda: clean, "paper": lambda: paper}

    def task(self, options: BraTSOptions, layout: Layout, protocol: Protocol) -> Task:
        """Whole tumour, tumour core, enhancing tumour, as overlapping regions; or time and event.

        The label values of the parts are found by their names, since MSD and the BraTS challenges number them
        differently (MSD: 1 edema, 2 non-enhancing, 3 enhancing; BraTS: 1 necrotic, 2 edema, 3 or 4 enhancing).
        """
        from mae_bench_plugins.datasets.brats.layouts import parts

        flips = (0, 1, 2)
        if options.target == "survival":
            return Task(
                kind="survival",
                channels=layout.channels,
                findings=("time", "event"),
                labels=layout.labels,
                flip_axes=flips,
            )
        edema, core, enhancing = parts(layout)
        # D1: the paper's code calls MSD's label 2 `ET`, which MSD calls non-enhancing tumour.
        third = core if protocol.name == "paper" else enhancing
        inner = enhancing if protocol.name == "paper" else core
        return Task(
            kind="segmentation",
            channels=layout.channels,
            labels=layout.labels,
            overlapping=True,
            flip_axes=flips,
            regions=(
                Region(name="WT", labels=(edema, core, enhancing), paint=edema),
                Region(name="TC", labels=(core, enhancing), paint=inner),
                Region(name="ET", labels=(third,), paint=third),
            ),
        )

    def split(self, cases: tuple[RawCase, ...], protocol: Protocol) -> Split:
        """`paper`: fold 0 of 5 of MONAI's CrossValidation, seed 12345 (PAPER 2c). Else by hash of the subject."""
        from mae_bench.data.split import by_fraction, shuffled_fold

        if protocol.name == "paper":
            return shuffled_fold(cases, folds=5, fold=0, seed=12345)
        return by_fraction(cases, val=0.1, test=0.25)

    def write_demo(self, options: BraTSOptions, root: Path, progress: Callable[[int, int], None]) -> None:
        """Write simulated gliomas in MNI anatomy, in the MSD layout; of survival, with outcomes that follow them."""
        from mae_bench_plugins.datasets.brats.gliomas import write

        volumes = write(root, options.subjects, options.demo_spacing, progress)
        if options.target == "survival":
            from mae_bench_plugins.datasets.brats.survival import write_outcomes

            write_outcomes(root, volumes)


def _is_demo(layout: Layout) -> bool:
    return bool(layout.cases) and all(case.id.startswith("DEMO_") for case in layout.cases)


@hookimpl
def mae_bench_datasets() -> list[BraTS]:
    """Brain tumours."""
    return [BraTS()]
