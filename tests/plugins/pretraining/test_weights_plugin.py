"""`weights`: start from any weights file; what became of them is in the record."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mae_bench.data.source import open_data
from mae_bench.engine.device import make_accelerator
from mae_bench.engine.loop import Setting
from mae_bench.errors import InputError, UsageError
from mae_bench.interfaces import Source
from mae_bench.recipe import load_recipe
from mae_bench.record import ResultRecord
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench.run import make_cell, run
from mae_bench.store import Store
from mae_bench_plugins.pretraining.weights import WeightsFile, WeightsOptions
from tests.files.checkpoints import timm_vit

DATASETS = {
    "mni152": {"dataset.subjects": "6", "dataset.spacing": "6"},
    "brats": {"dataset.subjects": "6", "dataset.demo_spacing": "6"},
}
Run = Callable[..., ResultRecord]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def cell(store: Store) -> Run:
    """Runs a cell of the recipe `smoke`, flags and settings as on the command line."""
    setting = Setting(make_accelerator())

    def run_cell(dataset: str, pretrain: str, flags: dict[str, str], settings: dict[str, str]) -> ResultRecord:
        demo, more = dataset == "brats", {**DATASETS[dataset], **settings}
        request = Request(dataset, pretrain, recipe="smoke", demo=demo, flags=flags, settings=more)
        chosen = resolve(request, registry())
        data = open_data(
            chosen.plugin("dataset"), chosen.options["dataset"], store, data=None, demo=demo, protocol=None
        )
        return run(make_cell(chosen, data, labels=1.0, seed=0, pretrain_seed=0), store, setting, registry())

    return run_cell


@pytest.fixture(scope="module")
def pretrained(cell: Run) -> ResultRecord:
    """An encoder of 1-channel volumes."""
    return cell("mni152", "mae", {}, {})


@pytest.fixture(scope="module")
def file(store: Store, pretrained: ResultRecord) -> Path:
    return store.folder("encoders", pretrained.spec.pretrain_key()) / "encoder.safetensors"


def test_the_same_encoder_elsewhere_gives_the_same_scores(
    cell: Run, file: Path, pretrained: ResultRecord, tmp_path: Path
) -> None:
    """The record names the file and not its folder; the key depends on what is in it."""
    moved = tmp_path / file.name
    shutil.copy(file, moved)
    record = cell("mni152", "weights", {"file": str(moved)}, {})
    assert record.transfer.loaded == 1.0
    assert record.transfer.source == "weights"
    assert record.spec.pretrain.options == {"file": "encoder.safetensors", "waive": False}
    assert len(record.spec.start) == 64
    assert record.metrics == pretrained.metrics
    assert record.cost.samples == 0
    again = cell("mni152", "weights", {"file": str(file)}, {})
    assert again.key == record.key


def test_another_roi_patch_and_number_of_channels_are_fitted(cell: Run, file: Path) -> None:
    changed = {"recipe.roi": "[16,32,32]", "backbone.patch": "[4]"}
    record = cell("brats", "weights", {"file": str(file)}, changed)
    assert record.status == "ok"
    assert record.transfer.random == 0
    assert record.transfer.resized > 0
    assert {line.split(" ")[1] for line in record.transfer.details} == {"pos_embed", "patch_embed.weight"}
    assert {line.split(":")[0] for line in record.transfer.details} == {"resized", "inflated"}


def test_too_little_is_refused_and_a_waiver_is_in_the_record(cell: Run, tmp_path: Path) -> None:
    """A timm network of another width has next to nothing for the encoder of the recipe."""
    path = tmp_path / "narrow.pth"
    torch.save(timm_vit(img_size=32).state_dict(), path)
    with pytest.raises(InputError, match=r"only 0\.0% of the encoder's parameters .*weights") as found:
        cell("mni152", "weights", {"file": str(path)}, {})
    assert "--waive" in found.value.hint
    record = cell("mni152", "weights", {"file": str(path), "waive": "true"}, {})
    assert record.transfer.waived
    assert record.transfer.random > 0.99
    assert record.spec.pretrain.options["waive"] is True


def test_the_file_must_be_named_and_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--file PATH"):
        WeightsFile().source(WeightsOptions())
    with pytest.raises(InputError, match=r"none\.pth: no such weights file"):
        resolve(Request("mni152", "weights", flags={"file": str(tmp_path / "none.pth")}), registry())
    (tmp_path / "x").touch()
    assert WeightsFile().source(WeightsOptions(file=tmp_path / "x")) == Source(tmp_path / "x")


def test_nothing_is_trained() -> None:
    recipe: Any = load_recipe(registry().get("dataset", "mni152").plugin.recipes, "smoke").for_method("weights", "vit")
    assert WeightsFile().objective(WeightsOptions(), object()) is None
    assert WeightsFile().extra_samples(WeightsOptions(), recipe, 10) == 0
    assert WeightsFile().needs(WeightsOptions()) == {"pooled"}
