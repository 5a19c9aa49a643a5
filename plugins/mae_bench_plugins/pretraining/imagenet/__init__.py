"""`imagenet`: weights learnt on ImageNet, with labels or by MAE, as timm gives them out; fine-tuned as they are."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from mae_bench import hookimpl
from mae_bench.errors import InputError
from mae_bench.interfaces import Source, Words
from mae_bench.recipe import Recipe
from mae_bench.values import Options

FILE = "model.safetensors"  # what timm's repositories on the Hugging Face hub call it


class ImageNetOptions(Options):
    """Options of `imagenet`."""

    model: str = Field(
        "vit_base_patch16_224.augreg_in1k",
        pattern=r"^[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*$",
        max_length=90,
        description="timm's name: with labels, or by MAE as vit_base_patch16_224.mae; also resnet50.a1_in1k",
    )
    file: Path | None = Field(
        None, description="a weights file instead of a name; `weights inspect` says what is in it"
    )
    # How the file was come by is no part of what was run.
    download: bool = Field(
        False, exclude=True, description="fetch the named weights from the Hugging Face hub if they are not there"
    )
    waive: bool = Field(False, description="go on though less than 95 % of the encoder is in the weights")


class ImageNet:
    """Starts from published weights and trains nothing before fine-tuning."""

    name = "imagenet"
    summary = "ImageNet weights by timm's name or from a file, supervised or by MAE"
    Options = ImageNetOptions
    trains = False

    def provides(self, options: ImageNetOptions) -> Words:
        """Nothing that others need."""
        return frozenset()

    def needs(self, options: ImageNetOptions) -> Words:
        """Any encoder of images."""
        return frozenset({"pooled"})

    def source(self, options: ImageNetOptions) -> Source:
        """The file, or what the hub's cache holds under the name; the hub itself is asked only with `download`."""
        if options.file is not None:
            if not options.file.is_file():
                raise InputError(
                    f"{options.file}: no such weights file", "give --set pretrain.file=PATH, or --model NAME --download"
                )
            return Source(options.file, options.waive)
        return Source(_hub_file(options.model, options.download), options.waive)

    def objective(self, options: ImageNetOptions, encoder: object) -> None:
        """There is nothing to train."""

    def extra_samples(self, options: ImageNetOptions, recipe: Recipe, cases: int) -> int:
        """None: what ImageNet cost was paid by others."""
        return 0


def _hub_file(model: str, download: bool) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository = f"timm/{model}"
    found = try_to_load_from_cache(repository, FILE)
    if isinstance(found, str):
        return Path(found)
    if not download:
        # He et al. gave their weights out for research only, and timm's copies say so.
        licence = "CC BY-NC 4.0: not for commercial use" if model.endswith(".mae") else "its page tells"
        raise InputError(
            f"imagenet: the weights of {model} are not on this machine, and nothing is fetched unasked",
            f"fetch them: --download (https://huggingface.co/{repository}; licence: {licence}), "
            "or give a file: --set pretrain.file=PATH",
        )
    try:
        return Path(hf_hub_download(repository, FILE))
    except Exception as error:  # the hub's client raises many kinds; all mean that the file could not be had
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"imagenet: {repository} could not be fetched: {why}",
            f"fetch {FILE} of https://huggingface.co/{repository} elsewhere, and give it: --set pretrain.file=PATH",
        ) from error


@hookimpl
def mae_bench_pretrainings() -> list[ImageNet]:
    """ImageNet weights."""
    return [ImageNet()]
