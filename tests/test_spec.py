"""RunSpec: what its keys depend on, and what they do not."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mae_bench.spec import RunSpec
from mae_bench.values import canonical_json, digest

SPEC: dict[str, Any] = {
    "dataset": {"name": "brats", "options": {"subjects": 47}},
    "data": {"kind": "demo", "fingerprint": "f00d", "skipped": []},
    "protocol": {
        "name": "clean-v1", "summary": "rules",
        "preprocessing": {"spacing": [1, 1, 1], "intensity": {"kind": "zscore"}},
    },
    "backbone": {"name": "vit", "options": {"size": "tiny", "patch": [8]}},
    "pretrain": {"name": "mae", "options": {"ratio": 0.75}},
    "head": {"name": "unetr", "options": {"features": 8}},
    "recipe": {
        "name": "demo", "summary": "minutes", "roi": [48, 48, 48],
        "pretrain": {"steps": 100, "batch": 8, "lr": 1e-3}, "finetune": {"steps": 20, "batch": 2, "lr": 1e-3},
    },
}  # fmt: skip

STAGE: dict[str, Any] = {
    "batch": 16, "crops": 2, "lr": 2e-3, "warmup": 0.2, "betas": [0.9, 0.999], "weight_decay": 0.1, "clip": 1.0,
    "accumulate": 2, "schedule": "step", "milestones": [0.5], "optimizer": "sgd", "area": [0.1, 1.0], "rotate": 10.0,
    "intensity": 0.2,
}  # fmt: skip

# Every field of a specification that counts, with another value for it.
OTHERS: dict[str, Any] = {
    "dataset.name": "msd",
    "dataset.options": {"subjects": 12},
    "data.kind": "real",
    "data.fingerprint": "beef",
    "data.split": "other lists",
    "data.skipped": ["case 3"],
    "protocol.name": "paper",
    "protocol.version": 2,
    "protocol.preprocessing.spacing": [1, 1, 2],
    "protocol.preprocessing.intensity.kind": "window",
    "protocol.preprocessing.intensity.low": -175.0,
    "protocol.preprocessing.intensity.high": 250.0,
    "protocol.preprocessing.intensity.mean": 0.5,
    "protocol.preprocessing.intensity.std": 0.25,
    "protocol.preprocessing.size": [64, 64],
    "protocol.preprocessing.crop_to_foreground": False,
    "protocol.pretrain_crops": "labels",
    "protocol.crop_zscore": True,
    "protocol.scored_on": "prepared",
    "protocol.distance_unit": "voxel",
    "protocol.empty": "ignore",
    "protocol.selection": "test",
    "backbone.name": "resnet",
    "backbone.options": {"size": "small", "patch": [8]},
    "pretrain.name": "scratch",
    "pretrain.options": {"ratio": 0.5},
    "head.name": "linear",
    "head.options": {"features": 16},
    "recipe.name": "paper",
    "recipe.roi": [48, 48, 64],
    **{f"recipe.{stage}.{name}": value for stage in ("pretrain", "finetune") for name, value in STAGE.items()},
    "recipe.pretrain.steps": 99,
    "recipe.finetune.steps": 99,
    "recipe.pretrain.epochs": 5,
    "recipe.finetune.epochs": 5,
    "recipe.finetune.layer_decay": 0.65,
    "recipe.finetune.drop_path": 0.2,
    "recipe.finetune.loss": "dice",
    "recipe.finetune.foreground": 0.3,
    "recipe.finetune.flip": 0.2,
    "recipe.finetune.intensity": 0.3,
    "recipe.finetune.randaugment": 9,
    "recipe.finetune.checks": 8,
    "recipe.finetune.overlap": 0.25,
    "labels": 0.1,
    "seed": 1,
    "start": "abc",
    "pretrain_seed": 1,
    "federation": {"sites": 4},
}

# What an encoder does not depend on: the contract lets heads, label shares and fine-tuning seeds share one.
SHARED = ("head.", "recipe.finetune.", "recipe.name", "labels", "seed")


def make_spec(**changes: Any) -> RunSpec:
    """A specification, with other values at dotted paths (`__` for the dot)."""
    return change({path.replace("__", "."): value for path, value in changes.items()})


def change(values: dict[str, Any]) -> RunSpec:
    document = RunSpec.model_validate(SPEC).model_dump(mode="json")
    for path, value in values.items():
        *folders, name = path.split(".")
        place = document
        for folder in folders:
            place = place[folder]
        place[name] = value
        # Steps and epochs exclude each other.
        if name == "epochs":
            place["steps"] = None
    return RunSpec.model_validate(document)


def leaves(value: Any, path: str = "") -> list[str]:
    if not isinstance(value, dict) or path.endswith(".options"):
        return [path]
    return [leaf for name, part in value.items() for leaf in leaves(part, f"{path}.{name}".lstrip("."))]


def test_the_table_above_names_every_field() -> None:
    there = set(leaves(make_spec().model_dump(mode="json")))
    assert there - {"protocol.summary", "recipe.summary"} == set(OTHERS)


@pytest.mark.parametrize("path", OTHERS)
def test_the_key_changes_with_every_field(path: str) -> None:
    assert change({path: OTHERS[path]}).key() != make_spec().key()


def test_all_keys_are_different() -> None:
    keys = {change({path: value}).key() for path, value in OTHERS.items()}
    assert len(keys) == len(OTHERS)


@pytest.mark.parametrize("path", OTHERS)
def test_the_encoder_key_changes_with_what_the_encoder_depends_on(path: str) -> None:
    shared = path.startswith(SHARED)
    assert (change({path: OTHERS[path]}).pretrain_key() == make_spec().pretrain_key()) is shared


@pytest.mark.parametrize("path", ["protocol.summary", "recipe.summary"])
def test_words_that_only_describe_do_not_count(path: str) -> None:
    other = change({path: "other words"})
    assert (other.key(), other.pretrain_key()) == (make_spec().key(), make_spec().pretrain_key())


def test_keys_are_short_and_hexadecimal() -> None:
    for key in (make_spec().key(), make_spec().pretrain_key()):
        assert len(key) == 20
        int(key, 16)
    assert make_spec().key() != make_spec().pretrain_key()


def test_keys_survive_the_journey_through_json() -> None:
    spec = make_spec()
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.key() == spec.key()


def test_keys_do_not_depend_on_how_a_number_is_written() -> None:
    assert make_spec(labels=1).key() == make_spec(labels=1.0).key()
    assert make_spec(recipe__pretrain__clip=1).key() == make_spec(recipe__pretrain__clip=1.0).key()


def test_another_process_finds_the_same_keys() -> None:
    """Nothing of a key comes from hash randomisation or the order in which fields were given."""
    spec = make_spec()
    backwards = dict(reversed(spec.model_dump(mode="json").items()))
    code = (
        "import sys; from mae_bench.spec import RunSpec; spec = RunSpec.model_validate_json(sys.stdin.read());"
        "print(spec.key(), spec.pretrain_key())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(backwards), capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [spec.key(), spec.pretrain_key()]


@pytest.mark.parametrize(("field", "value"), [("labels", 0), ("labels", 1.5), ("seed", -1), ("pretrain_seed", -1)])
def test_bounds(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        make_spec(**{field: value})


def test_a_specification_is_frozen_and_closed() -> None:
    spec = make_spec()
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3
    with pytest.raises(ValidationError, match="gpu"):
        make_spec(gpu=1)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


def backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: backwards(part) for name, part in reversed(value.items())}
    return [backwards(part) for part in value] if isinstance(value, list) else value


@settings(max_examples=40, deadline=None)
@given(documents)
def test_canonical_json_does_not_depend_on_the_order_of_fields(document: Any) -> None:
    text = canonical_json(document)
    assert json.loads(text) == document
    assert canonical_json(backwards(document)) == text
    assert canonical_json(json.loads(text)) == text
    assert digest(backwards(document)) == digest(document)


@settings(max_examples=40, deadline=None)
@given(documents, documents)
def test_digests_tell_documents_apart(first: Any, second: Any) -> None:
    assert (digest(first) == digest(second)) == (canonical_json(first) == canonical_json(second))


def test_canonical_json_has_no_spaces_and_no_nan() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
