"""What is to be learnt from a data set (Task) and under which rules it is scored (Protocol)."""

from typing import Literal

from pydantic import Field

from mae_bench.values import Value

Spacing = tuple[float, ...]


class Region(Value):
    """A class that is predicted and scored: the union of some label values.

    `paint` is the label value a predicted voxel of this region gets in a label map; regions are painted in the
    order of the task, so a later region (enhancing tumour) overwrites an earlier one that contains it (whole tumour).
    """

    name: str
    labels: tuple[int, ...]
    paint: int
    headline: bool = Field(True, description="counts in the mean over regions; all are trained and scored")


class Task(Value):
    """What the network sees and what it must answer."""

    kind: Literal["segmentation", "classification", "survival"]
    channels: tuple[str, ...] = Field(min_length=1)
    ndim: Literal[2, 3] = 3
    regions: tuple[Region, ...] = ()
    findings: tuple[str, ...] = Field((), description="columns of a case's findings; of survival: time and event")
    overlapping: bool = Field(False, description="regions may overlap: sigmoid per region instead of softmax")
    labels: dict[int, str] = Field(default_factory=dict, description="label values that files may contain")
    flip_axes: tuple[int, ...] = Field((), description="spatial axes along which a mirrored image is as plausible")

    @property
    def outputs(self) -> int:
        """Number of outputs: findings; one log-risk; regions, plus background when they exclude each other."""
        if self.kind == "classification":
            return len(self.findings)
        if self.kind == "survival":
            return 1
        return len(self.regions) + (0 if self.overlapping else 1)


class Intensity(Value):
    """How raw intensities become network input.

    `zscore`: per channel over its non-zero voxels, zeros stay zero. `window`: [low, high] to [0, 1], clipped.
    `equalize`: histogram equalisation of the whole image to [0, 1]. The last two are then standardised by mean and std.
    """

    kind: Literal["zscore", "window", "equalize"]
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    std: float = Field(1.0, gt=0)

    @property
    def zero_is_air(self) -> bool:
        """Whether a prepared voxel of exactly zero means outside the body."""
        return self.kind == "zscore" or (self.kind == "window" and self.mean == 0)


class Preprocessing(Value):
    """What happens once per case. `spacing` in mm after reorientation to RAS; None keeps the native grid.

    size: for 2-D images that are classified, the pixels they are resized to.
    """

    spacing: Spacing | None = None
    size: tuple[int, int] | None = None
    intensity: Intensity
    crop_to_foreground: bool = True


class Protocol(Value):
    """Split, preprocessing, selection rule and scoring, under one name. Two protocols never share a table."""

    name: str
    version: int = 1
    summary: str
    preprocessing: Preprocessing
    pretrain_crops: Literal["foreground", "labels"] = Field(
        "foreground", description="`labels` draws self-supervised crops around labelled voxels (not label-free)"
    )
    crop_zscore: bool = Field(False, description="normalise each training crop again by its own statistics")
    scored_on: Literal["native", "prepared"] = "native"
    distance_unit: Literal["mm", "voxel"] = "mm"
    empty: Literal["score", "ignore"] = Field(
        "score",
        description="`score`: an absent region that is predicted absent scores 1, any other disagreement "
        "scores Dice 0 and the image diagonal; `ignore`: such cases leave the mean",
    )
    selection: Literal["validation", "test"] = Field(
        "validation", description="cases on which the checkpoint is chosen; `test` is optimistic, and only for `paper`"
    )


class Split(Value):
    """Case ids on each side. With selection on the test set, `val` repeats `test`."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
