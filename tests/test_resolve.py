"""From names, flags and --set to a complete cell; refusals that say what there is instead."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pluggy
import pytest
from pydantic import Field

from mae_bench.errors import UsageError
from mae_bench.registry import Listed, Registry, registry
from mae_bench.resolve import Chosen, Request, resolve, resolve_plugin
from mae_bench.values import Options


def resolved(dataset: str = "mni152", pretrain: str = "mae", **rest: Any) -> Chosen:
    rest["settings"] = {name.replace("__", "."): value for name, value in rest.get("settings", {}).items()}
    return resolve(Request(dataset, pretrain, **rest), registry())


def with_set(**settings: str) -> Chosen:
    return resolved(settings=settings)


def option(chosen: Chosen, kind: str, name: str) -> Any:
    return getattr(chosen.options[kind], name)


@pytest.mark.parametrize("text", ["0.5", "5e-1"])
def test_ratio_goes_to_mae(text: str) -> None:
    assert option(resolved(flags={"ratio": text}), "pretrain", "ratio") == 0.5


def test_flags_go_to_their_one_owner() -> None:
    chosen = resolved(
        flags={"size": "small", "patch": "[8, 8, 4]", "features": "4", "subjects": "12", "decoder-dim": "48",
               "norm_pix": "false"},
    )  # fmt: skip
    assert option(chosen, "backbone", "size") == "small"
    assert option(chosen, "backbone", "patch") == (8, 8, 4)
    assert option(chosen, "head", "features") == 4
    assert option(chosen, "dataset", "subjects") == 12
    assert option(chosen, "pretrain", "decoder_dim") == 48
    assert option(chosen, "pretrain", "norm_pix") is False


def test_an_unknown_flag_lists_the_flags() -> None:
    with pytest.raises(UsageError, match="--rotio: no chosen plugin has this option") as caught:
        resolved(flags={"rotio": "0.5"})
    for flag in ("--ratio (mae)", "--decoder-dim (mae)", "--size (vit)", "--features (unetr)", "--subjects (mni152)"):
        assert flag in str(caught.value)


def test_a_flag_of_a_plugin_that_was_not_chosen_is_unknown() -> None:
    with pytest.raises(UsageError, match="--ratio: no chosen plugin"):
        resolved(pretrain="scratch", flags={"ratio": "0.5"})


class Clashing(Options):
    """Has an option of `unetr`, and one that the recipe's stage has too."""

    features: int = Field(3, ge=1)
    lr: float = Field(0.1, gt=0)


class ClashingPretraining:
    name, summary, Options = "clashing", "", Clashing

    def provides(self, options: Clashing) -> frozenset[str]:
        return frozenset()

    needs = provides

    def source(self, options: Clashing) -> None:
        """Random weights."""


def with_clash() -> Registry:
    found = Registry(pluggy.PluginManager("mae_bench"), dict(registry().found))
    found.found["pretrain", "clashing"] = [Listed("pretrain", ClashingPretraining(), "elsewhere", "1")]
    return found


def test_a_flag_with_two_owners_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="--features: pretrain and head both have this option") as caught:
        resolve(Request("mni152", "clashing", flags={"features": "5"}), with_clash())
    assert "--set pretrain.features=5 or --set head.features=5" in str(caught.value)
    chosen = resolve(Request("mni152", "clashing", settings={"head.features": "5"}), with_clash())
    assert (option(chosen, "pretrain", "features"), option(chosen, "head", "features")) == (3, 5)


def test_a_setting_with_two_owners_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--set pretrain\.lr: ambiguous: option of the pretrain clashing and setting"):
        resolve(Request("mni152", "clashing", settings={"pretrain.lr": "1"}), with_clash())


def test_pretrain_names_both_the_stage_and_the_plugin() -> None:
    before, after = resolved(), with_set(pretrain__lr="0.5", pretrain__ratio="0.25")
    assert (after.recipe.pretrain.lr, option(after, "pretrain", "ratio")) == (0.5, 0.25)
    assert after.recipe.finetune == before.recipe.finetune
    assert after.recipe.pretrain.model_copy(update={"lr": before.recipe.pretrain.lr}) == before.recipe.pretrain


def test_settings_go_to_their_places() -> None:
    chosen = with_set(
        finetune__drop_path="0.2", finetune__loss="dice", recipe__roi="[32, 48, 64]", backbone__size="base",
        dataset__subjects="9", head__features="2", pretrain__clip="1", **{"finetune__weight-decay": "0"},
    )  # fmt: skip
    finetune = chosen.recipe.finetune
    assert (finetune.drop_path, finetune.loss, finetune.weight_decay) == (0.2, "dice", 0)
    assert (chosen.recipe.roi, chosen.recipe.pretrain.clip) == ((32, 48, 64), 1)
    assert option(chosen, "backbone", "size") == "base"
    assert option(chosen, "dataset", "subjects") == 9
    assert option(chosen, "head", "features") == 2


def test_steps_replace_epochs_and_the_other_way_round() -> None:
    paper = resolved("brats", recipe="paper")
    assert (paper.recipe.pretrain.steps, paper.recipe.pretrain.epochs) == (None, 500)
    stage = resolved("brats", recipe="paper", settings={"pretrain.steps": "7"}).recipe.pretrain
    assert (stage.steps, stage.epochs) == (7, None)
    stage = with_set(finetune__epochs="3").recipe.finetune
    assert (stage.steps, stage.epochs) == (None, 3)
    with pytest.raises(UsageError, match="exactly one of steps and epochs"):
        with_set(finetune__epochs="3", finetune__steps="3")


@pytest.mark.parametrize(
    ("setting", "value", "names"),
    [
        ("pretrain.ratio", "7", "pretrain mae: ratio"),
        ("pretrain.ratio", "much", "ratio"),
        ("pretrain.ratio", "NaN", "ratio"),
        ("pretrain.lr", "-1", "pretrain.lr"),
        ("pretrain.lr", "Infinity", "pretrain.lr"),
        ("pretrain.batch", "0", "pretrain.batch"),
        ("finetune.layer_decay", "2", "finetune.layer_decay"),
        ("finetune.loss", "hinge", "finetune.loss"),
        ("backbone.size", "huge", "backbone vit: size"),
        ("backbone.patch", "[0]", "backbone vit: patch"),
        ("backbone.patch", "[-8]", "backbone vit: patch"),
        ("dataset.subjects", "1", "dataset mni152: subjects"),
        ("dataset.spacing", "0", "dataset mni152: spacing"),
        ("head.features", "1", "head unetr: features"),
        ("recipe.roi", "wide", "roi"),
        ("recipe.roi", "[0, 48, 48]", "roi"),
    ],
)
def test_a_value_out_of_bounds_names_the_field(setting: str, value: str, names: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(settings={setting: value})
    assert names in str(caught.value)


@pytest.mark.parametrize("setting", ["pretrain.rate", "lr", "recipe.lr", "recipe.pretrain", "trunk.size", "data.x"])
def test_an_unknown_setting_lists_the_settings(setting: str) -> None:
    with pytest.raises(UsageError, match="no such setting") as caught:
        resolved(settings={setting: "1"})
    for name in ("pretrain.lr", "pretrain.ratio", "finetune.layer_decay", "backbone.size", "recipe.roi"):
        assert name in str(caught.value).split("There are: ")[1].split(", ")


def test_the_recipe_recommends_options_and_the_user_has_the_last_word() -> None:
    assert option(resolved(), "backbone", "size") == "tiny"
    assert option(resolved(flags={"size": "large"}), "backbone", "size") == "large"
    assert option(with_set(backbone__size="large"), "backbone", "size") == "large"


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Request("mni152", "mae"), "demo"),
        (Request("brats", "mae", demo=True), "demo"),
        (Request("brats", "mae"), "paper"),
        (Request("brats", "mae", demo=True, recipe="smoke"), "smoke"),
    ],
)
def test_the_default_recipe(request_: Request, name: str) -> None:
    assert resolve(request_, registry()).recipe.name == name


def test_the_recipe_of_a_cell_holds_no_plugin_options() -> None:
    """They are in the choices; in the recipe they would enter the key twice."""
    assert "options" not in resolved().recipe.model_dump()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("dataset", {"dataset": "brats2"}), ("pretrain", {"pretrain": "maee"}), ("backbone", {"backbone": "vitt"}),
     ("head", {"head": "unet"}), ("recipe", {"recipe": "quick"})],
)  # fmt: skip
def test_an_unknown_name_is_refused(kind: str, changes: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"no {kind}"):
        resolved(**changes)


def test_the_head_follows_the_task() -> None:
    assert resolved().plugins["head"].plugin.name == "unetr"
    chosen = with_set(dataset__target="atrophy")
    assert chosen.plugins["head"].plugin.name == "classifier"
    assert resolved(flags={"target": "atrophy"}).plugins["head"].plugin.name == "classifier"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request("mni152", "mae", head="unetr", settings={"dataset.target": "atrophy"}),
         "head unetr needs segmentation, which none of mni152, vit, mae provides"),
        (Request("mni152", "scratch", head="classifier"), "head classifier needs classification"),
        (Request("mni152", "mae", settings={"backbone.patch": "[16, 16]", "recipe.roi": "[48, 48]"}),
         "dataset mni152 needs 3d"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused_with_the_reason(request_: Request, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(request_, registry())
    assert reason in str(caught.value)


def test_a_refusal_needs_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from mae_bench.errors import UsageError
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
resolve(Request("mni152", "mae"), registry())
try:
    resolve(Request("mni152", "mae", head="unetr", settings={"dataset.target": "atrophy"}), registry())
except UsageError as error:
    print(error)
print([name for name in ("torch", "timm", "monai", "nibabel") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    refusal, heavy = answer.stdout.splitlines()
    assert "head unetr needs segmentation" in refusal
    assert heavy == "[]"


def test_a_data_set_alone() -> None:
    plugin, options = resolve_plugin("dataset", "mni152", {"dataset.subjects": "8"}, registry())
    assert (plugin.name, options.subjects, options.target) == ("mni152", 8, "anatomy")
    with pytest.raises(UsageError, match=r"--set pretrain\.lr: no such setting.*dataset\.subjects"):
        resolve_plugin("dataset", "mni152", {"pretrain.lr": "1"}, registry())
    with pytest.raises(UsageError, match="dataset mni152: subjects"):
        resolve_plugin("dataset", "mni152", {"dataset.subjects": "1"}, registry())
