"""What a plugin object is. Structural types: a plugin needs no base class of ours.

Cards are light: importing a plugin module must not import torch. The heavy work is behind the methods, which import
what they need when they are called.

Words: `provides` and `needs` are sets of words such as `2d`, `3d`, `tokens`, `map`, `pooled`, `segmentation`,
`classification`. A cell of the grid is possible when nothing that a plugin needs is missing from what the others
provide, so a refusal is explained without building anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mae_bench.recipe import Recipe
from mae_bench.task import Protocol as Rules
from mae_bench.task import Split, Task
from mae_bench.values import Options, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

Words = frozenset[str]


class DatasetCard(Value):
    """What travels with a data set."""

    title: str
    licence: str
    citation: str
    obtain: str
    layout: str


@dataclass(frozen=True)
class RawCase:
    """One case as it lies on disk. `images` are relative to the data directory, in channel order (or one 4-D file).

    label: of segmentation, what is to be learnt; of other tasks a mask that a pre-training may use (lungs). findings:
    as `Task.findings` names them.
    """

    id: str
    subject: str
    images: tuple[Path, ...]
    label: Path | None = None
    findings: tuple[float, ...] = ()


@dataclass(frozen=True)
class RawImage:
    """A case in memory, in the orientation of its file.

    image: (C, *spatial) of any real dtype. label: (*spatial) or None. affine: 4 x 4, voxel to millimetre; None when
    the file has no millimetres (PNG, npz): axes stay as they are. label_affine: as `affine`, as the label file says
    it. sha256: over the bytes of all files of the case.
    """

    image: NDArray[Any]
    label: NDArray[Any] | None
    affine: NDArray[np.float64] | None
    label_affine: NDArray[np.float64] | None
    sha256: str


@dataclass(frozen=True)
class Layout:
    """What was found under a data directory: the cases, and what its description declares.

    problems: what is wrong with cases that cannot be used, by case.
    """

    root: Path
    cases: tuple[RawCase, ...]
    channels: tuple[str, ...]
    labels: dict[int, str]
    problems: dict[str, str] = field(default_factory=dict)


class Plugin(Protocol):
    """What every plugin object carries."""

    name: str
    summary: str
    Options: type[Options]

    def provides(self, options: Any) -> Words: ...
    def needs(self, options: Any) -> Words: ...


class Dataset(Plugin, Protocol):
    """Reads one official on-disk layout, and can write a stand-in of it."""

    card: DatasetCard
    recipes: Path
    builtin: bool
    """The data come with an installed package: `run` needs neither --data nor --demo."""
    stand_in: bool
    """`write_demo` can write something."""

    def scan(self, options: Any, root: Path) -> Layout:
        """List the cases under `root` without reading images. Raises InputError if this is not the layout."""
        ...

    def read(self, case: RawCase, root: Path) -> RawImage:
        """Read one case. Raises InputError naming the file."""
        ...

    def protocols(self, options: Any, layout: Layout) -> Mapping[str, Callable[[], Rules]]:
        """Protocols by name, the default one first. Making one may read file headers, so it is done on demand."""
        ...

    def task(self, options: Any, layout: Layout, protocol: Rules) -> Task:
        """What is to be learnt under `protocol`."""
        ...

    def split(self, cases: tuple[RawCase, ...], protocol: Rules) -> Split:
        """Divide the cases; a subject never crosses sides."""
        ...

    def write_demo(self, options: Any, root: Path, progress: Callable[[int, int], None]) -> None:
        """Write the stand-in under `root` in the official layout, the same bytes every time."""
        ...


class Features(NamedTuple):
    """What an encoder says of a batch.

    pooled: (B, dim). map: (B, dim, *grid), after the last norm. hidden: token maps after each block, as `map`; empty
    for encoders that do not provide `hidden`.
    """

    pooled: Tensor
    map: Tensor
    hidden: tuple[Tensor, ...]


class Encoder(Protocol):
    """A torch module that turns images into features.

    `dim`: width. `grid`: places of the map per axis for the roi it was built for. `patch`: voxels per place and axis.
    `depth`: entries of `hidden`.
    """

    dim: int
    depth: int
    grid: tuple[int, ...]
    patch: tuple[int, ...]
    channels: int

    def __call__(self, x: Tensor) -> Features: ...

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters from input to output, for layer decay: embedding, each block, final norm."""
        ...


class Backbone(Plugin, Protocol):
    """Builds encoders."""

    def check(self, options: Any, roi: tuple[int, ...]) -> None:
        """Raise UsageError when it cannot be built for crops of this size. Light: called before any data is read."""
        ...

    def build(self, options: Any, channels: int, roi: tuple[int, ...], drop_path: float = 0.0) -> nn.Module: ...


@dataclass(frozen=True)
class Wants:
    """What an objective asks of the engine.

    views: crops of the same place per sample; more than one makes the batch (B, V, C, *roi). masks: the case's mask
    beside each crop, zeros where there is none. turns: names of the losses that are minimised one after the other in
    each step, each with its own optimiser (discriminators, then generators).
    """

    views: int = 1
    masks: bool = False
    turns: tuple[str, ...] = ("",)


class Objective(Protocol):
    """A torch module that trains an encoder without labels: `forward(batch)` gives named losses, `loss` is minimised.

    `forward` also gets `masks=` (B, *roi) if it wants them, and `turn=` if it wants several; then `groups` says which
    parameters learn in which turn. `after_step` runs after each optimiser step with the share of the training that
    is done, in (0, 1] (momentum encoders, queues). `preview` gives (input, masked, reconstruction), masked
    voxels NaN, for the picture and for the reconstruction gain, or None when there is nothing to show.
    """

    encoder: nn.Module
    wants: Wants

    def __call__(self, batch: Tensor) -> dict[str, Tensor]: ...
    def after_step(self, done: float) -> None: ...
    def preview(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor] | None: ...


class SeveralTurns(Objective, Protocol):
    """An objective whose `wants.turns` has more than one name."""

    def groups(self, turn: str, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups of a turn: `params`, `scale` of the learning rate, `weight_decay`, and `betas` if other."""
        ...


class Source(NamedTuple):
    """A weights file, in any layout that `engine.layouts` reads. waive: take it though less than 95 % of it fits."""

    path: Path
    waive: bool = False


class Pretraining(Plugin, Protocol):
    """Builds objectives; None means there is nothing to train (scratch, ImageNet)."""

    trains: bool
    """Whether `objective` gives one, so that a plan can be made without building any."""

    def objective(self, options: Any, encoder: nn.Module) -> nn.Module | None: ...

    def source(self, options: Any) -> Source | None:
        """The weights file that the encoder starts from; None for random weights.

        Raises:
            InputError: there is none where the options say; tells what to type.
        """
        ...

    def extra_samples(self, options: Any, recipe: Recipe, cases: int) -> int:
        """Crops that fine-tuning gets on top of its own, so that total budgets are equal. `cases`: training cases."""
        ...


class Head(Plugin, Protocol):
    """Builds the task model on an encoder: a torch module with that `encoder`, whose forward gives logits.

    Logits are (B, outputs, *roi) for segmentation, (B, outputs) for classification and (B, 1) log-risks for survival.
    A model that has `remember(features, findings)` is not trained: it is handed the pooled features (N, dim) and the
    findings (N, K) of all labelled cases instead.
    """

    def build(self, options: Any, encoder: nn.Module, task: Task) -> nn.Module: ...
