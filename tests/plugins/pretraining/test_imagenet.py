"""`imagenet`: the weights come from a file or from the hub's cache; the hub itself is asked only when told to."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from mae_bench.errors import InputError
from mae_bench.interfaces import Source
from mae_bench.recipe import load_recipe
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench_plugins.pretraining.imagenet import ImageNet, ImageNetOptions
from tests.files.checkpoints import timm_vit


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that must not be asked."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))

    def asked(*arguments: Any) -> str:
        raise AssertionError(arguments)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", asked)
    return folder


def put(cache: Path, model: str) -> Path:
    """A file where the hub's client keeps it: models--OWNER--NAME/snapshots/REVISION, and refs/main that names it."""
    folder = cache / f"models--timm--{model}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    path = folder / "snapshots" / "abc" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in timm_vit(img_size=32).state_dict().items()}, path)
    return path


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    torch.save(timm_vit().state_dict(), tmp_path / "own.pth")
    options = ImageNetOptions(file=tmp_path / "own.pth", waive=True)
    assert ImageNet().source(options) == Source(tmp_path / "own.pth", waive=True)
    with pytest.raises(InputError, match=r"none\.pth: no such weights file\n.*pretrain\.file=PATH"):
        ImageNet().source(ImageNetOptions(file=tmp_path / "none.pth"))


def test_what_is_in_the_cache_is_taken_without_asking_the_hub(cache: Path) -> None:
    path = put(cache, "vit_base_patch16_224.mae")
    for download in (False, True):
        options = ImageNetOptions(model="vit_base_patch16_224.mae", download=download)
        assert ImageNet().source(options) == Source(path)


@pytest.mark.parametrize(
    ("model", "licence"),
    [("vit_base_patch16_224.augreg_in1k", "its page tells"), ("vit_base_patch16_224.mae", "CC BY-NC 4.0")],
)
def test_nothing_is_fetched_unasked(model: str, licence: str) -> None:
    with pytest.raises(InputError, match=f"weights of {model} are not on this machine") as found:
        ImageNet().source(ImageNetOptions(model=model))
    for words in ("--download", f"https://huggingface.co/timm/{model}", licence, "--set pretrain.file=PATH"):
        assert words in found.value.hint


def test_it_is_fetched_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub's client raises is one message that says what to do instead."""
    calls = []

    def fetch(*arguments: str) -> str:
        calls.append(arguments)
        return str(tmp_path / "fetched")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert ImageNet().source(ImageNetOptions(download=True)) == Source(tmp_path / "fetched")
    assert calls == [("timm/vit_base_patch16_224.augreg_in1k", "model.safetensors")]

    def fail(*arguments: str) -> str:
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(InputError, match=r"could not be fetched: no route\nfetch model\.safetensors of https://"):
        ImageNet().source(ImageNetOptions(download=True))


@pytest.mark.parametrize("model", ["", "../x", "timm/x", "a..b", "a--b", "x" * 91, ".hidden", "a b"])
def test_a_name_that_is_no_model_is_refused(model: str) -> None:
    with pytest.raises(ValidationError, match="model"):
        ImageNetOptions(model=model)


def test_nothing_is_trained() -> None:
    recipe = load_recipe(registry().get("dataset", "mni152").plugin.recipes, "smoke").for_method("imagenet", "vit")
    assert ImageNet().objective(ImageNetOptions(), object()) is None
    assert ImageNet().extra_samples(ImageNetOptions(), recipe, 10) == 0
    assert ImageNet().needs(ImageNetOptions()) == {"pooled"}


def test_flags_reach_the_options_and_a_download_is_no_part_of_the_key(cache: Path) -> None:
    """`--download --waive` as the command line hands them on; the same weights, however they came, are the same run."""
    put(cache, "some.mae")
    flags = {"model": "some.mae", "waive": "true"}
    request = {"dataset": "mni152", "pretrain": "imagenet", "recipe": "smoke"}
    plain = resolve(Request(**request, flags=flags), registry())
    told = resolve(Request(**request, flags={**flags, "download": "true"}), registry())
    assert told.options["pretrain"].download  # type: ignore[attr-defined]
    assert told.source() == plain.source()
    assert told.source() is not None
    assert told.source().waive  # type: ignore[union-attr]
    assert told.recorded("pretrain") == plain.recorded("pretrain") == {"model": "some.mae", "file": None, "waive": True}
