"""Pictures that let a person see whether a run learnt anything."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mae_bench.errors import InputError
from mae_bench.store import write_bytes
from mae_bench.task import Task

# Okabe & Ito's colours, which colour-blind readers can tell apart; then a few more for many classes.
COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#882255", "#44AA99"]


class Slice(NamedTuple):
    """One axial slice of a test case; all arrays (x, y)."""

    case: str
    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]


def widest_slice(case: str, image: NDArray[Any], truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Slice:
    """The slice with most labelled voxels of the last axis; 2-D images are their own slice."""
    if truth.ndim == 2:
        return Slice(case, np.asarray(image, np.float32), truth, prediction)
    at = int((truth > 0).sum(axis=(0, 1)).argmax())
    return Slice(case, np.asarray(image[..., at], np.float32), truth[..., at], prediction[..., at])


def reconstruction(
    images: NDArray[np.float32], masked: NDArray[np.float32], completed: NDArray[np.float32], path: Path
) -> None:
    """Draw input, masked input and completion, a row per image, the middle slice of the first channel.

    Args:
        images, masked, completed: (B, C, *roi); masked voxels of `masked` are NaN.
    """
    rows = len(images)
    figure = Figure(figsize=(7.5, 2.4 * rows + 0.4), layout="constrained", facecolor="black")
    axes = figure.subplots(rows, 3, squeeze=False)
    for row, parts in enumerate(zip(images, masked, completed, strict=True)):
        planes = [_plane(part[0]) for part in parts]
        low, high = np.nanmin(planes[0]), np.nanmax(planes[0])
        for axis, plane, title in zip(
            axes[row], planes, ("input", "visible to the encoder", "reconstruction"), strict=True
        ):
            axis.set_facecolor("#303030")  # what a masked patch looks like
            axis.imshow(plane.T, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(title, color="white")
    _write(figure, path)


def overlays(slices: Sequence[Slice], scores: NDArray[np.float64], task: Task, path: Path) -> None:
    """Draw image, truth and prediction of the best, the median and the worst case by `scores`."""
    order = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    figure = Figure(figsize=(8, 8.6), layout="constrained", facecolor="black")
    axes = figure.subplots(3, 3)
    colours = COLOURS * (1 + len(task.regions) // len(COLOURS))
    painted = {region.paint: colours[number] for number, region in enumerate(task.regions)}
    table = ListedColormap([painted.get(value, "black") for value in range(256)])
    for row, (word, index) in zip(axes, chosen.items(), strict=True):
        shown = slices[index]
        for axis, label, title in zip(
            row,
            (None, shown.truth, shown.prediction),
            (f"{word}: {shown.case}", "truth", f"Dice {scores[index]:.3f}"),
            strict=True,
        ):
            axis.imshow(shown.image.T, origin="lower", cmap="gray", interpolation="nearest")
            if label is not None:
                layer = np.ma.masked_equal(label.T, 0)
                axis.imshow(layer, origin="lower", cmap=table, vmin=0, vmax=255, alpha=0.6, interpolation="nearest")
            axis.set_title(title, color="white", fontsize=10)
            axis.set(xticks=[], yticks=[])
    figure.legend(
        handles=[Patch(color=colours[number], label=region.name) for number, region in enumerate(task.regions)],
        loc="outside lower center",
        ncols=3,
        labelcolor="white",
        frameon=False,
    )
    _write(figure, path)


SLICES = "slices.npz"  # beside a model: what `overlays` was drawn from, of every test case


def keep_slices(slices: Sequence[Slice], path: Path) -> None:
    """Write slices so that another run on the same cases can be drawn beside them."""
    arrays = {
        f"{number}.{name}": np.asarray(value)
        for number, shown in enumerate(slices)
        for name, value in shown._asdict().items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def read_slices(path: Path) -> dict[str, Slice]:
    """Slices by case.

    Raises:
        InputError: there are none.
    """
    if not path.is_file():
        raise InputError(f"{path}: missing: only segmentations of this version keep slices", "run the cell anew")
    with np.load(path, allow_pickle=False) as arrays:
        count = len({name.partition(".")[0] for name in arrays.files})
        found = [Slice(*(arrays[f"{number}.{name}"] for name in Slice._fields)) for number in range(count)]
    return {str(shown.case): shown for shown in found}


def differences(
    pairs: Sequence[tuple[Slice, Slice]], titles: Sequence[str], names: tuple[str, str], path: Path
) -> None:
    """Draw the same cases under two runs: truth, A, B, and where they differ.

    There, orange is where A alone is right, blue where B alone is, grey where both are wrong in different ways.
    """
    rows = len(pairs)
    figure = Figure(figsize=(10, 2.5 * rows + 0.8), layout="constrained", facecolor="black")
    axes = figure.subplots(rows, 4, squeeze=False)
    labels = ListedColormap(["black", *(COLOURS * 26)[:255]])
    verdicts = ListedColormap(["black", "#E69F00", "#56B4E9", "#999999"])
    for row, (a, b), title in zip(axes, pairs, titles, strict=True):
        right_a, right_b = a.prediction == a.truth, b.prediction == b.truth
        verdict = np.where(a.prediction == b.prediction, 0, np.where(right_a, 1, np.where(right_b, 2, 3)))
        layers = (
            (a.truth, labels, 255),
            (a.prediction, labels, 255),
            (b.prediction, labels, 255),
            (verdict, verdicts, 3),
        )
        heads = (title, f"A: {names[0]}", f"B: {names[1]}", "orange: A alone right, blue: B alone")
        for axis, (layer, table, top), head in zip(row, layers, heads, strict=True):
            axis.imshow(a.image.T, origin="lower", cmap="gray", interpolation="nearest")
            shown = np.ma.masked_equal(layer.T, 0)
            axis.imshow(shown, origin="lower", cmap=table, vmin=0, vmax=top, alpha=0.6, interpolation="nearest")
            axis.set_title(head, color="white", fontsize=8)
            axis.set(xticks=[], yticks=[])
    _write(figure, path)


def _plane(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    return volume if volume.ndim == 2 else volume[..., volume.shape[-1] // 2]


def _write(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
