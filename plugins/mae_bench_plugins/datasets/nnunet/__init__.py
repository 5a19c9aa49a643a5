"""`nnunet`: any raw data set in nnU-Net v2's format; the task is read from its dataset.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from mae_bench import hookimpl
from mae_bench.data.generic import SUBJECT, with_subjects
from mae_bench.errors import UsageError
from mae_bench.interfaces import DatasetCard, Layout, RawCase, RawImage, Words
from mae_bench.task import Protocol, Region, Split, Task
from mae_bench.values import Options

Millimetres = Annotated[FiniteFloat, Field(gt=0)]


class NNUNetOptions(Options):
    """Options of `nnunet`."""

    ndim: Literal[2, 3] = Field(3, description="axes of an image: 3 for .nii.gz and .nii, 2 for .png")
    intensity: Literal["auto", "zscore", "window"] = Field(
        "auto", description="auto: as channel_names ask, a window for CT, z-score of non-zero voxels for others"
    )
    low: FiniteFloat = Field(-175.0, ge=-32768, le=65535, description="lower end of the window")
    high: FiniteFloat = Field(250.0, ge=-32768, le=65535, description="upper end of the window")
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = Field(
        None,
        description="voxel size in mm; when not given, the finest of all cases per axis, which loses nothing",
    )
    fold: int = Field(0, ge=0, le=99, description="fold of splits_final.json that is tested (protocol nnunet-folds)")

    subject: str = Field("", max_length=200, description=SUBJECT)

    @model_validator(mode="after")
    def _fits(self) -> NNUNetOptions:
        if self.low >= self.high:
            raise ValueError("low must be less than high")
        if self.ndim == 2 and self.spacing is not None:
            raise ValueError("spacing: images with two axes (.png) have no millimetres")
        return self


class NNUNet:
    """Reads one DatasetXXX_Name folder of nnUNet_raw."""

    name = "nnunet"
    summary = "any data set in the raw format of nnU-Net v2"
    Options = NNUNetOptions
    recipes = Path(__file__).parent / "recipes"
    stand_in = False
    builtin = False
    card = DatasetCard(
        title="Your own data, or any other, in nnU-Net v2's raw format",
        licence="that of the data",
        citation="Format: Isensee et al., nnU-Net, Nature Methods 18, 203-211, 2021. The data have their own",
        obtain="a folder nnUNet_raw/DatasetXXX_Name",
        layout="dataset.json (channel_names, labels, numTraining, file_ending), imagesTr/CASE_0000.nii.gz (one file "
        "per channel), labelsTr/CASE.nii.gz; also .nii and .png; splits_final.json beside them if you have folds. "
        "Not read: .mha, .nrrd, .tif, an `ignore` label, channels that ask for different normalisations. Several cases "
        "of a patient: --subject",
    )

    def provides(self, options: NNUNetOptions) -> Words:
        """Images with classes."""
        return frozenset({f"{options.ndim}d", "segmentation"})

    def needs(self, options: NNUNetOptions) -> Words:
        """A backbone for as many axes."""
        return frozenset({f"{options.ndim}d"})

    def scan(self, options: NNUNetOptions, root: Path) -> Layout:
        """List the training cases."""
        from mae_bench_plugins.datasets.nnunet.layout import scan

        return with_subjects(scan(root, options.ndim), options.subject)

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Read the files of one case: NIfTI, or PNG without an affine."""
        from mae_bench_plugins.datasets.nnunet.planes import read

        return read(case, root)

    def protocols(self, options: NNUNetOptions, layout: Layout) -> Mapping[str, Callable[[], Protocol]]:
        """`clean-v1`; and `nnunet-folds` where splits_final.json lies with the data."""
        from mae_bench_plugins.datasets.nnunet.rules import FOLDS_FILE, clean, folds

        made: dict[str, Callable[[], Protocol]] = {"clean-v1": lambda: clean(options, layout)}
        if (layout.root / FOLDS_FILE).is_file():
            made["nnunet-folds"] = lambda: folds(options, layout)
        return made

    def task(self, options: NNUNetOptions, layout: Layout, protocol: Protocol) -> Task:
        """One region per entry of `labels`; regions overlap where an entry has several values.

        Nothing is mirrored: what lies left and right is unknown here.
        """
        from mae_bench_plugins.datasets.nnunet.description import read_description

        found = read_description(layout.root)
        return Task(
            kind="segmentation",
            ndim=options.ndim,
            channels=layout.channels,
            labels=layout.labels,
            overlapping=found.overlapping,
            regions=tuple(Region(name=name, labels=values, paint=paint) for name, values, paint in found.regions),
        )

    def split(self, cases: tuple[RawCase, ...], protocol: Protocol) -> Split:
        """The fold, or by hash of the subject."""
        from mae_bench_plugins.datasets.nnunet.rules import split

        return split(cases, protocol)

    def write_demo(self, options: NNUNetOptions, root: Path, progress: Callable[[int, int], None]) -> None:
        """There is no one data set to stand in for."""
        raise UsageError("nnunet has no stand-in")


@hookimpl
def mae_bench_datasets() -> list[NNUNet]:
    """Any data set of nnU-Net."""
    return [NNUNet()]
