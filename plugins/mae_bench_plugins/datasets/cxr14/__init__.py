"""`cxr14`: fourteen findings in 112 120 frontal chest radiographs (ChestX-ray14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.interfaces import DatasetCard, Layout, RawCase, RawImage, Words
from mae_bench.task import Intensity, Preprocessing, Protocol, Split, Task
from mae_bench.values import Options

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
MASK_LABELS = {1: "lung"}
HINT = "`mae-bench data status cxr14` says where to get the data and how it must lie"
SIZE = 256  # pixels a side, as the paper prepares them (PAPER 2a)
STAND_IN_SIZE = 128
STAND_IN = "STAND-IN.txt"  # the file that says that a folder holds drawings
WIDTH_AXIS = 1  # of (H, W)


class CXR14Options(Options):
    """Options of `cxr14`."""

    channels: Literal[1, 3] = Field(1, description="3 repeats the grey image, for weights made from colour pictures")
    size: int | None = Field(
        None, ge=32, le=1024, description=f"pixels a side of prepared images: {SIZE}, of the stand-in {STAND_IN_SIZE}"
    )
    subjects: int = Field(200, ge=12, le=20_000, description="how many patients the stand-in (--demo) has")
    demo_size: int = Field(128, ge=64, le=1024, description="pixels a side of the stand-in's files")


class CXR14:
    """Reads the official layout."""

    name = "cxr14"
    summary = "fourteen findings in chest radiographs: NIH ChestX-ray14"
    Options = CXR14Options
    recipes = Path(__file__).parent / "recipes"
    stand_in = True
    builtin = False
    card = DatasetCard(
        title="NIH ChestX-ray14: 112 120 frontal radiographs of 30 805 patients",
        licence="terms of the NIH Clinical Center: free to use with a link to where the images came from, the "
        "citation below, and the NIH Clinical Center named as their source",
        citation="Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database "
        "and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR 2017",
        obtain="https://nihcc.app.box.com/v/ChestXray-NIHCC: all images_*.tar.gz, unpacked, the table and both lists",
        layout="Data_Entry_2017_v2020.csv or Data_Entry_2017.csv, train_val_list.txt, test_list.txt, and *.png in "
        "images/, images_001/images/ to images_012/images/ or images_001/ to images_012/; lung masks of the same "
        "names, if there are any, in masks/",
    )

    def provides(self, options: CXR14Options) -> Words:
        """Planes with findings."""
        return frozenset({"2d", "classification"})

    def needs(self, options: CXR14Options) -> Words:
        """A backbone for planes."""
        return frozenset({"2d"})

    def scan(self, options: CXR14Options, root: Path) -> Layout:
        """List the images of the table, with patient, findings and official side."""
        from mae_bench_plugins.datasets.cxr14.official import scan

        return scan(root, options.channels)

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Read one radiograph, and its lung mask where there is one."""
        from mae_bench_plugins.datasets.cxr14.official import read_case

        return read_case(case, root)

    def protocols(self, options: CXR14Options, layout: Layout) -> Mapping[str, Callable[[], Protocol]]:
        """`clean-v1`, and `paper`, which selects on the test list as the paper's code does (PAPER 2a, D3)."""
        side = options.size or (STAND_IN_SIZE if (layout.root / STAND_IN).is_file() else SIZE)

        def prepared(intensity: Intensity) -> Preprocessing:
            return Preprocessing(size=(side, side), intensity=intensity, crop_to_foreground=False)

        return {
            "clean-v1": lambda: Protocol(
                name="clean-v1",
                summary="official lists; 11 212 of the 86 524 training images, whole patients by hash, are held out to "
                "select on; grey levels as they are",
                preprocessing=prepared(Intensity(kind="window", low=0, high=255, mean=0.5, std=0.225)),
            ),
            "paper": lambda: Protocol(
                name="paper",
                summary="official lists; trained on all of the first, checkpoint chosen on the test list; histograms "
                "equalised",
                preprocessing=prepared(Intensity(kind="equalize", mean=0.5, std=0.225)),
                selection="test",
            ),
        }

    def task(self, options: CXR14Options, layout: Layout, protocol: Protocol) -> Task:
        """Fourteen findings, any of which may be there; mirrored as in the paper (PAPER 2a)."""
        return Task(
            kind="classification",
            ndim=2,
            channels=layout.channels,
            findings=FINDINGS,
            labels=layout.labels,
            flip_axes=(WIDTH_AXIS,),
        )

    def split(self, cases: tuple[RawCase, ...], protocol: Protocol) -> Split:
        """By the official lists. A patient is on one side only."""
        from mae_bench_plugins.datasets.cxr14.sides import Radiograph, official_split

        return official_split(cast("tuple[Radiograph, ...]", cases), held_out=protocol.name != "paper")

    def write_demo(self, options: CXR14Options, root: Path, progress: Callable[[int, int], None]) -> None:
        """Write drawn radiographs in the official layout."""
        from mae_bench_plugins.datasets.cxr14.drawings import write

        write(root, options.subjects, options.demo_size, progress)


@hookimpl
def mae_bench_datasets() -> list[CXR14]:
    """ChestX-ray14."""
    return [CXR14()]
