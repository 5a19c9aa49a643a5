"""`btcv`: 13 organs in abdominal CT, the labelled cases of the challenge Beyond the Cranial Vault (Synapse)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.errors import UsageError
from mae_bench.interfaces import DatasetCard, Layout, RawCase, RawImage, Words
from mae_bench.task import Intensity, Protocol, Region, Split, Task
from mae_bench.values import Options

if TYPE_CHECKING:
    from mae_bench_plugins.datasets.btcv.splits import SplitProtocol

CHANNELS = ("CT",)
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
LABELS = dict(enumerate(ORGANS, 1))
# PAPER 2b: all 13 are trained, the paper's headline is the mean of these.
PAPER_ORGANS = {
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "liver",
    "stomach",
    "aorta",
    "pancreas",
}
STAND_IN = "stand-in.json"  # marks a written stand-in: its voxels are coarser than the protocols'
SPACING = (1.5, 1.5, 2.0)
WINDOW = Intensity(kind="window", low=-175, high=250)


class BTCVOptions(Options):
    """Options of `btcv`."""

    fold: int = Field(0, ge=0, le=4, description="fold of clean-v1 that is tested; the other protocols have one split")
    demo_spacing: float = Field(5.0, ge=2, le=12, description="voxel size of the stand-in in mm")


class BTCV:
    """Reads the official arrangement of files, and MONAI's."""

    name = "btcv"
    summary = "13 abdominal organs in CT: Synapse, Beyond the Cranial Vault"
    Options = BTCVOptions
    recipes = Path(__file__).parent / "recipes"
    stand_in = True
    builtin = False
    card = DatasetCard(
        title="Multi-Atlas Labeling Beyond the Cranial Vault, abdomen: 30 labelled CTs",
        licence="terms of the challenge on Synapse (syn3193805): registration, no redistribution",
        citation="Landman B, Xu Z, Iglesias JE, Styner M, Langerak TR, Klein A. MICCAI Multi-Atlas Labeling Beyond the "
        "Cranial Vault, Workshop and Challenge, 2015, doi:10.7303/syn3193805",
        obtain="register at https://www.synapse.org/Synapse:syn3193805, join the challenge, download RawData.zip of "
        "the abdomen, unpack it",
        layout="RawData/Training/{img/imgNNNN.nii.gz,label/labelNNNN.nii.gz} with NNNN 0001-0010 and 0021-0040 "
        "(--data may also be Training itself), or imagesTr/imgNNNN.nii.gz and labelsTr/labelNNNN.nii.gz with MONAI's "
        "dataset_0.json",
    )

    def provides(self, options: BTCVOptions) -> Words:
        """Volumes with regions."""
        return frozenset({"3d", "segmentation"})

    def needs(self, options: BTCVOptions) -> Words:
        """A backbone for volumes."""
        return frozenset({"3d"})

    def scan(self, options: BTCVOptions, root: Path) -> Layout:
        """Find the arrangement and list its pairs."""
        from mae_bench_plugins.datasets.btcv.layouts import scan

        return scan(root)

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Read the NIfTI pair."""
        from mae_bench.data.nifti import read_case

        return read_case(case, root)

    def protocols(self, options: BTCVOptions, layout: Layout) -> Mapping[str, Callable[[], Protocol]]:
        """`clean-v1`, `paper` (PAPER 2b and 4, D2 to D6), and `monai-24-6`.

        Making one raises InputError when cases of its fixed split are missing, before any image is read.
        """
        from mae_bench_plugins.datasets.btcv.rules import clean, monai, paper

        def with_fold() -> SplitProtocol:
            return clean(options.fold, layout)

        def without_fold(make: Callable[[Layout], SplitProtocol]) -> Callable[[], Protocol]:
            def made() -> Protocol:
                if options.fold:
                    raise UsageError(f"--fold {options.fold}: only protocol clean-v1 has folds")
                return make(layout)

            return made

        return {"clean-v1": with_fold, "paper": without_fold(paper), "monai-24-6": without_fold(monai)}

    def task(self, options: BTCVOptions, layout: Layout, protocol: Protocol) -> Task:
        """13 organs that exclude each other; under `paper` 8 of them make the mean.

        Left and right have names, and liver and spleen their sides, so nothing is mirrored, except under `paper`,
        whose code mirrors along all axes (PAPER 2b).
        """
        paper = protocol.name == "paper"
        return Task(
            kind="segmentation",
            channels=CHANNELS,
            labels=LABELS,
            flip_axes=(0, 1, 2) if paper else (),
            regions=tuple(
                Region(name=name, labels=(value,), paint=value, headline=not paper or name in PAPER_ORGANS)
                for value, name in LABELS.items()
            ),
        )

    def split(self, cases: tuple[RawCase, ...], protocol: Protocol) -> Split:
        """The sides that the protocol carries. Raises InputError naming the cases that a fixed split lacks."""
        from mae_bench_plugins.datasets.btcv.splits import SplitProtocol, choose

        assert isinstance(protocol, SplitProtocol)
        return choose(protocol.sides, cases, protocol.name, fixed=protocol.fixed)

    def write_demo(self, options: BTCVOptions, root: Path, progress: Callable[[int, int], None]) -> None:
        """Write procedural abdomens under the official names."""
        from mae_bench_plugins.datasets.btcv.abdomens import write

        write(root, options.demo_spacing, progress)


@hookimpl
def mae_bench_datasets() -> list[BTCV]:
    """Abdominal organs."""
    return [BTCV()]
