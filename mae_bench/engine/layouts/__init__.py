"""Encoder weights in the layouts they are given out in, read by the names in them; each is one entry of LAYOUTS.

LSAE's released checkpoint is not among them: its encoder pads, filters and activates in places where the backbone
`texture` does not, so its weights would give other features there. What `texture` itself learnt is read like all ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mae_bench.engine.layouts.convolutional import from_densenet, from_resnet
from mae_bench.engine.layouts.files import read_tensors
from mae_bench.engine.layouts.hugging_face import from_hugging_face
from mae_bench.engine.layouts.monai import from_monai
from mae_bench.engine.layouts.names import NOTHING, State, Stated
from mae_bench.engine.layouts.vit import from_selfmedmae, from_timm
from mae_bench.engine.transfer import Weights
from mae_bench.engine.weights import has_geometry, load_weights
from mae_bench.errors import InputError

OURS = "mae-bench"


class Found(NamedTuple):
    """A file's layout by name, with its weights under our names."""

    layout: str
    weights: Weights


@dataclass(frozen=True)
class Layout:
    """marks: parts of names that a file of this layout has. axes: of its patches, where only that tells it.

    convert: from its names to ours.
    """

    name: str
    marks: tuple[str, ...]
    convert: Callable[[State, Stated], Weights]
    axes: int | None = None

    def fits(self, state: State) -> bool:
        """Whether a file with these tensors is of this layout."""
        marked = all(any(mark in name for name in state) for mark in self.marks)
        return marked and self.axes in (None, *(v.ndim - 2 for n, v in state.items() if self.marks[0] in n))


# The first that fits; what is more special comes first.
LAYOUTS = (
    Layout("transformers ViT", ("embeddings.patch_embeddings.projection.weight",), from_hugging_face),
    Layout("MONAI ViT", ("patch_embedding.position_embeddings",), from_monai),
    Layout("SelfMedMAE", ("encoder.patch_embed.proj.weight", "encoder.blocks.0."), from_selfmedmae, axes=3),
    Layout("facebookresearch/mae", ("patch_embed.proj.weight", "decoder_blocks.0.", "mask_token"), from_timm),
    Layout("timm ViT", ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"), from_timm),
    Layout("ResNet", ("layer1.0.conv1.weight", "bn1.running_mean"), from_resnet),
    Layout("DenseNet", ("features.conv0.weight", "features.denseblock1."), from_densenet),
)


def read_weights(path: Path, stated: Stated = NOTHING) -> Found:
    """Read a weights file of any known layout.

    Raises:
        InputError: missing, damaged, of no known layout, with parts that our encoders have no place for, with values
            that are no numbers, ambiguous in a way that `stated` could settle, or other than stated.
    """
    if has_geometry(path):
        found = Found(OURS, load_weights(path))
    else:
        state = read_tensors(path)
        layout = next((layout for layout in LAYOUTS if layout.fits(state)), None)
        if layout is None:
            known = ", ".join([OURS, *(layout.name for layout in LAYOUTS)])
            raise InputError(f"{path}: weights of an unknown layout (known: {known}); it begins with {list(state)[:3]}")
        try:
            found = Found(layout.name, layout.convert(state, stated))
        except InputError as error:
            raise InputError(f"{path}: {layout.name}: {error.what}", error.hint) from error
        except (KeyError, RuntimeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: looks like {layout.name}, but its tensors do not fit: {error}") from error
    for what, said in stated._asdict().items():
        there = getattr(found.weights, what)
        if said and said != there:
            raise InputError(f"{path}: its {what}: {there or 'none'}, not {said} as stated")
    broken = [name for name, value in found.weights.state.items() if not value.isfinite().all()]
    if broken:
        raise InputError(f"{path}: {broken[0]} has values that are no numbers: a training that diverged?")
    return found
