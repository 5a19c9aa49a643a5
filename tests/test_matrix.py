"""Every cell of the paper's comparison, at tiny sizes: it runs, or is refused with the reason."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer

from mae_bench.data.source import open_data
from mae_bench.engine.device import make_accelerator
from mae_bench.engine.loop import Setting
from mae_bench.errors import UsageError
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench.run import make_cell, run
from mae_bench.store import Store

DATASETS = {
    "cxr14": {"dataset.subjects": "40", "dataset.demo_size": "64"},
    "btcv": {"dataset.demo_spacing": "12"},
    "brats": {"dataset.subjects": "6", "dataset.demo_spacing": "6"},
    "mni152": {"dataset.subjects": "6", "dataset.spacing": "6"},
}
BACKBONES = ("vit", "resnet18", "resnet50", "densenet121", "texture")
PRETRAININGS = ("mae", "moco", "lsae", "imagenet", "scratch")
HEADS = ("unetr", "linear", "classifier", "knn", "cox")
# What a word in a refusal must be for the cell to be rightly refused.
MISSING = {
    ("mae", "resnet18"): "tokens", ("mae", "resnet50"): "tokens", ("mae", "densenet121"): "tokens",
    ("mae", "texture"): "tokens", ("unetr", "resnet18"): "hidden", ("unetr", "resnet50"): "hidden",
    ("unetr", "densenet121"): "hidden", ("unetr", "texture"): "hidden", ("unetr", "cxr14"): "segmentation",
    ("cox", "cxr14"): "survival", ("cox", "btcv"): "survival", ("cox", "brats"): "survival",
    ("cox", "mni152"): "survival",
    **{(head, dataset): "classification" for head in ("classifier", "knn") for dataset in ("btcv", "brats", "mni152")},
    **{("lsae", dataset): "2d" for dataset in ("btcv", "brats", "mni152")},
    **{("texture", dataset): "3d" for dataset in ("btcv", "brats", "mni152")},
}  # fmt: skip
# There are no ImageNet weights of this network.
NO_WEIGHTS = {"texture"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files in the layouts of timm and torchvision, as if they had been downloaded."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    networks = {
        "vit": VisionTransformer(img_size=224, patch_size=16, embed_dim=192, depth=4, num_heads=3),
        "resnet18": timm.create_model("resnet18", pretrained=False),
        "resnet50": timm.create_model("resnet50", pretrained=False),
        "densenet121": torchvision.models.densenet121(weights=None),
    }
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in networks}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Setting]:
    """One store, so that heads share pre-trainings as they do in a grid."""
    return Store(tmp_path_factory.mktemp("store")), Setting(make_accelerator())


def reasons(dataset: str, backbone: str, pretrain: str, head: str) -> set[str]:
    return {MISSING[pair] for pair in itertools.permutations((dataset, backbone, pretrain, head), 2) if pair in MISSING}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_cell_runs_or_is_refused_with_its_reason(
    dataset: str, backbone: str, weights: dict[str, Path], place: tuple[Store, Setting]
) -> None:
    store, setting = place
    ran = 0
    for pretrain, head in itertools.product(PRETRAININGS, HEADS):
        if pretrain == "imagenet" and backbone in NO_WEIGHTS:
            continue
        settings: dict[str, Any] = {**DATASETS[dataset], "pretrain.steps": "2", "finetune.steps": "2"}
        if pretrain == "imagenet":
            settings["pretrain.file"] = str(weights[backbone])
        if pretrain == "lsae":
            settings |= {"pretrain.width": "4", "pretrain.texture_dim": "64", "pretrain.patch_size": "16"}
        if backbone == "texture":
            settings |= {"backbone.width": "4", "backbone.dim": "64"}
        request = Request(dataset, pretrain, backbone, head, "smoke", demo=True, settings=settings)
        expected = reasons(dataset, backbone, pretrain, head)
        if expected:
            with pytest.raises(UsageError) as refused:
                resolve(request, registry())
            assert any(word in str(refused.value) for word in expected), (request, str(refused.value))
            continue
        chosen = resolve(request, registry())
        plugin, options = chosen.plugin("dataset"), chosen.options["dataset"]
        data = open_data(plugin, options, store, data=None, demo=True, protocol=None)
        record = run(make_cell(chosen, data, labels=1.0, seed=0, pretrain_seed=0), store, setting, registry())
        assert record.status == "ok", (request, record.reason)
        assert record.data.kind == "demo"
        assert record.transfer is not None
        assert record.transfer.random == pytest.approx(1.0 if pretrain == "scratch" else 0.0, abs=0.05)
        ran += 1
    if backbone == "texture" and dataset != "cxr14":
        assert ran == 0
    else:
        assert ran >= 3
