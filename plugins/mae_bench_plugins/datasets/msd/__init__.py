"""`msd`: any task in the layout of the Medical Segmentation Decathlon; the task is read from its dataset.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from mae_bench import hookimpl
from mae_bench.data.generic import SUBJECT, choose_intensity, with_subjects
from mae_bench.errors import UsageError
from mae_bench.interfaces import DatasetCard, Layout, RawCase, RawImage, Words
from mae_bench.task import Preprocessing, Protocol, Region, Split, Task
from mae_bench.values import Options

Millimetres = Annotated[FiniteFloat, Field(gt=0)]


class MSDOptions(Options):
    """Options of `msd`."""

    intensity: Literal["auto", "zscore", "window"] = Field(
        "auto",
        description="auto: as dataset.json's modality asks, a window for CT, z-score of non-zero voxels for others",
    )
    low: FiniteFloat = Field(-175.0, ge=-1e6, le=1e6, description="lower end of the window")
    high: FiniteFloat = Field(250.0, ge=-1e6, le=1e6, description="upper end of the window")
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = Field(
        None,
        description="voxel size in mm; when not given, the finest of all cases per axis, which loses nothing",
    )

    subject: str = Field("", max_length=200, description=SUBJECT)

    @model_validator(mode="after")
    def _window(self) -> MSDOptions:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        return self


class MSD:
    """Reads one task folder."""

    name = "msd"
    summary = "any task in the Medical Segmentation Decathlon layout"
    Options = MSDOptions
    recipes = Path(__file__).parent / "recipes"
    stand_in = False
    builtin = False
    card = DatasetCard(
        title="Medical Segmentation Decathlon, or your own data in its layout",
        licence="the Decathlon's tasks: CC-BY-SA 4.0; your own data: yours",
        citation="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128, 2022",
        obtain="http://medicaldecathlon.com, one tar per task, unpacked",
        layout="dataset.json (modality, labels, training), imagesTr/*.nii.gz (x, y, z[, channel]), labelsTr/*.nii.gz",
    )

    def provides(self, options: MSDOptions) -> Words:
        """Volumes with classes."""
        return frozenset({"3d", "segmentation"})

    def needs(self, options: MSDOptions) -> Words:
        """A backbone for volumes."""
        return frozenset({"3d"})

    def scan(self, options: MSDOptions, root: Path) -> Layout:
        """List what dataset.json declares."""
        from mae_bench.data.decathlon import scan

        return with_subjects(scan(root), options.subject)

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Read the NIfTI pair."""
        from mae_bench.data.nifti import read_case

        return read_case(case, root)

    def protocols(self, options: MSDOptions, layout: Layout) -> Mapping[str, Callable[[], Protocol]]:
        """Only `clean-v1`."""
        intensity = choose_intensity(options.intensity, options.low, options.high, layout.channels)

        def clean() -> Protocol:
            from mae_bench.data.nifti import finest_spacing

            return Protocol(
                name="clean-v1",
                summary="10 % validation and 25 % test cases by hash; native space; label-free pre-training crops",
                preprocessing=Preprocessing(spacing=options.spacing or finest_spacing(layout), intensity=intensity),
            )

        return {"clean-v1": clean}

    def task(self, options: MSDOptions, layout: Layout, protocol: Protocol) -> Task:
        """One region per label value, each excluding the others."""
        return Task(
            kind="segmentation",
            channels=layout.channels,
            labels=layout.labels,
            regions=tuple(
                Region(name=name, labels=(value,), paint=value) for value, name in sorted(layout.labels.items())
            ),
        )

    def split(self, cases: tuple[RawCase, ...], protocol: Protocol) -> Split:
        """By hash of the subject."""
        from mae_bench.data.split import by_fraction

        return by_fraction(cases, val=0.1, test=0.25)

    def write_demo(self, options: MSDOptions, root: Path, progress: Callable[[int, int], None]) -> None:
        """There is no one task to stand in for."""
        raise UsageError("msd has no stand-in")


@hookimpl
def mae_bench_datasets() -> list[MSD]:
    """Any task of the Decathlon."""
    return [MSD()]
