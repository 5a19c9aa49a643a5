"""`medmnist`: the 18 classification sets of MedMNIST+, in two and three dimensions, at 28 to 224 pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from mae_bench import hookimpl
from mae_bench.interfaces import DatasetCard, Layout, RawCase, RawImage, Words
from mae_bench.task import Intensity, Preprocessing, Protocol, Split, Task
from mae_bench.values import Options

if TYPE_CHECKING:
    from mae_bench_plugins.datasets.medmnist.catalogue import Published

Flag = Literal[
    "pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist", "bloodmnist",
    "tissuemnist", "organamnist", "organcmnist", "organsmnist", "organmnist3d", "nodulemnist3d", "adrenalmnist3d",
    "fracturemnist3d", "vesselmnist3d", "synapsemnist3d",
]  # fmt: skip


class MedMNISTOptions(Options):
    """Options of `medmnist`."""

    flag: Flag = Field("organamnist", description="which of the 18 data sets")
    size: Literal[28, 64, 128, 224] = Field(28, description="pixels per axis; 3-D sets have 28 and 64")
    check_md5: bool = Field(True, description="refuse a file whose MD5 is not the published one")
    samples: int = Field(240, ge=80, le=20_000, description="how many images the stand-in (--demo) has")

    @model_validator(mode="after")
    def _published_size(self) -> MedMNISTOptions:
        if self.flag.endswith("3d") and self.size > 64:
            raise ValueError(f"{self.flag} is published at 28 and 64 voxels, not at {self.size}")
        return self


class MedMNIST:
    """Reads the published npz file of one data set."""

    name = "medmnist"
    summary = "MedMNIST+: 18 small classification sets, 2-D and 3-D, 28 to 224 pixels"
    Options = MedMNISTOptions
    recipes = Path(__file__).parent / "recipes"
    stand_in = True
    builtin = False
    card = DatasetCard(
        title="MedMNIST+ (MedMNIST v2 at 28, 64, 128 and 224 pixels). The files name no patients: every image counts "
        "as a subject of its own, so intervals are too narrow where one patient gave several images",
        licence="CC BY 4.0; dermamnist CC BY-NC 4.0",
        citation="Yang et al., MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image "
        "classification, Scientific Data 10, 41, 2023, doi:10.1038/s41597-022-01721-8",
        obtain="FLAG.npz or FLAG_SIZE.npz (organamnist_64.npz) from https://zenodo.org/records/10519652",
        layout="a folder that holds FLAG.npz (28 pixels) or FLAG_64.npz, FLAG_128.npz, FLAG_224.npz, each with "
        "{train,val,test}_{images,labels}",
    )

    def provides(self, options: MedMNISTOptions) -> Words:
        """Its dimensions, and classification."""
        return frozenset({_axes(options), "classification"})

    def needs(self, options: MedMNISTOptions) -> Words:
        """A backbone for images of its dimensions."""
        return frozenset({_axes(options)})

    def scan(self, options: MedMNISTOptions, root: Path) -> Layout:
        """Check the file, and list its images with their labels."""
        from mae_bench_plugins.datasets.medmnist.archive import scan

        return scan(root, options.flag, options.size, check_md5=options.check_md5)

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Take one image out of the file, which is opened once."""
        from mae_bench_plugins.datasets.medmnist.archive import read

        return read(case, root)

    def protocols(self, options: MedMNISTOptions, layout: Layout) -> Mapping[str, Callable[[], Protocol]]:
        """Only `official`: the split that is in the file."""
        facts = _facts(options)
        # Shape masks are read one higher than they are stored: see archive.read.
        low = 1.0 if facts.shape else 0.0
        return {
            "official": lambda: Protocol(
                name="official",
                summary="the split in the file, checkpoint chosen on its validation side; mean AUC over findings, of "
                "several classes one against the rest; no patients are named, so every image is its own subject",
                preprocessing=Preprocessing(
                    intensity=Intensity(kind="window", low=low, high=low + 255), crop_to_foreground=False
                ),
            )
        }

    def task(self, options: MedMNISTOptions, layout: Layout, protocol: Protocol) -> Task:
        """One finding per class or label; of two classes the second."""
        facts = _facts(options)
        return Task(
            kind="classification",
            channels=layout.channels,
            ndim=facts.axes,
            findings=facts.findings,
            flip_axes=facts.flips,
        )

    def split(self, cases: tuple[RawCase, ...], protocol: Protocol) -> Split:
        """As the file divides them."""
        from mae_bench_plugins.datasets.medmnist.archive import split

        return split(cases)

    def write_demo(self, options: MedMNISTOptions, root: Path, progress: Callable[[int, int], None]) -> None:
        """Write drawn shapes, one kind per class, in the published layout; `DEMO` beside it holds its MD5."""
        from mae_bench_plugins.datasets.medmnist.catalogue import file_name
        from mae_bench_plugins.datasets.medmnist.shapes import write

        write(root, file_name(options.flag, options.size), _facts(options), options.size, options.samples, progress)


def _axes(options: MedMNISTOptions) -> str:
    return "3d" if options.flag.endswith("3d") else "2d"


def _facts(options: MedMNISTOptions) -> Published:
    from mae_bench_plugins.datasets.medmnist.catalogue import catalogue

    return catalogue()[options.flag]


@hookimpl
def mae_bench_datasets() -> list[MedMNIST]:
    """MedMNIST+."""
    return [MedMNIST()]
