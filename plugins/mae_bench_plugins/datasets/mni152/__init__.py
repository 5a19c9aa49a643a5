"""`mni152`: real anatomy that needs no download, as virtual subjects of the ICBM 152 template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.interfaces import DatasetCard, Layout, RawCase, RawImage, Words
from mae_bench.task import Intensity, Preprocessing, Protocol, Region, Split, Task
from mae_bench.values import Options

# Lobes are cut by planes in MNI space, so their borders are approximate; tissue follows the folds.
LABELS = {
    1: "frontal cortex",
    2: "parieto-occipital cortex",
    3: "temporal cortex",
    4: "left white matter",
    5: "right white matter",
    6: "cerebellum and brain stem",
}


class MNI152Options(Options):
    """Options of `mni152`."""

    subjects: int = Field(47, ge=6, le=2000, description="how many virtual subjects")
    spacing: float = Field(3.5, ge=1, le=6, description="voxel size in mm")
    target: Literal["anatomy", "atrophy"] = Field(
        "anatomy", description="segment tissue and lobes, or classify subjects with widened ventricles and sulci"
    )


class MNI152:
    """Writes virtual subjects in the Medical Segmentation Decathlon layout, and reads them like any other data."""

    name = "mni152"
    summary = "virtual subjects of the ICBM 152 template: real anatomy, no download"
    Options = MNI152Options
    recipes = Path(__file__).parent / "recipes"
    stand_in = True
    builtin = True
    card = DatasetCard(
        title="ICBM 152 nonlinear symmetric 2009a, virtual subjects",
        licence="template: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal "
        "Neurological Institute, McGill University; free to use, copy, modify and distribute if the notice is kept",
        citation="Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL. Unbiased average age-appropriate "
        "atlases for pediatric studies. NeuroImage 54(1), 2011, doi:10.1016/j.neuroimage.2010.07.033",
        obtain="nothing to obtain: the template is installed with nilearn",
        layout="dataset.json, imagesTr/*.nii.gz, labelsTr/*.nii.gz, written by mae-bench",
    )

    def provides(self, options: MNI152Options) -> Words:
        """Its dimensions and its task."""
        return frozenset({"3d", "segmentation" if options.target == "anatomy" else "classification"})

    def needs(self, options: MNI152Options) -> Words:
        """A backbone for volumes."""
        return frozenset({"3d"})

    def scan(self, options: MNI152Options, root: Path) -> Layout:
        """List the subjects; whether one is atrophied is in its name."""
        from dataclasses import replace

        from mae_bench.data.decathlon import scan

        layout = scan(root)
        if options.target == "anatomy":
            return layout
        return replace(
            layout, cases=tuple(replace(case, findings=(float(_atrophied(case.id)),)) for case in layout.cases)
        )

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Read the NIfTI pair."""
        from mae_bench.data.nifti import read_case

        return read_case(case, root)

    def protocols(self, options: MNI152Options, layout: Layout) -> Mapping[str, Callable[[], Protocol]]:
        """Only `clean-v1`: nobody has published on these subjects."""
        return {
            "clean-v1": lambda: Protocol(
                name="clean-v1",
                summary="10 % validation and 25 % test subjects by hash; native space; label-free pre-training crops",
                preprocessing=Preprocessing(intensity=Intensity(kind="zscore")),
            )
        }

    def task(self, options: MNI152Options, layout: Layout, protocol: Protocol) -> Task:
        """Anatomy: six regions, no flips, since left and right have names. Atrophy: one finding."""
        if options.target == "atrophy":
            return Task(
                kind="classification",
                channels=layout.channels,
                findings=("atrophy",),
                labels=layout.labels,
                flip_axes=(0,),
            )
        return Task(
            kind="segmentation",
            channels=layout.channels,
            labels=layout.labels,
            regions=tuple(Region(name=name, labels=(value,), paint=value) for value, name in LABELS.items()),
        )

    def split(self, cases: tuple[RawCase, ...], protocol: Protocol) -> Split:
        """By hash of the subject."""
        from mae_bench.data.split import by_fraction

        return by_fraction(cases, val=0.1, test=0.25)

    def write_demo(self, options: MNI152Options, root: Path, progress: Callable[[int, int], None]) -> None:
        """Write the virtual subjects."""
        from mae_bench_plugins.datasets.mni152.subjects import write

        write(root, options.subjects, options.spacing, LABELS, progress)


def _atrophied(case: str) -> bool:
    return case.endswith("a")


@hookimpl
def mae_bench_datasets() -> list[MNI152]:
    """Virtual subjects of the ICBM 152 template."""
    return [MNI152()]
