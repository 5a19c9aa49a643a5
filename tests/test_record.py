"""ResultRecord: schema 1 as the contract words it, and nothing lost on the way through a file."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from mae_bench.record import Metric, ResultRecord
from mae_bench.spec import RunSpec
from tests.test_spec import make_spec

SPLIT = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e", "f"]}


def make_record(spec: RunSpec | None = None, **changes: Any) -> ResultRecord:
    """A finished record of `spec`, with other values for its fields."""
    spec = spec or make_spec()
    fields = {
        "schema": 1,
        "key": spec.key(),
        "status": "ok",
        "spec": spec,
        "data": {"kind": "demo", "fingerprint": "f00d", "split": SPLIT, "labelled": ["a", "b"], "skipped": {"g": ""}},
        "metrics": {"dice": Metric(value=0.5, low=0.25, high=0.75, unit="1")},
        "main_metric": "dice",
        "cases": {"file": f"{spec.key()}.cases.csv", "sha256": "0" * 64},
        "transfer": {"source": "mae", "loaded": 0.99, "random": 0.01, "details": ["random: head"]},
        "cost": {"wall_s": 3.5, "pretrain_s": 1.25, "samples": 64, "peak_memory_mb": 900.0, "device": "cpu"},
        "environment": {"torch": "2.6"},
        "plugins": {"vit": {"dist": "mae-bench", "version": "0.1.0"}},
        "events": [{"event": "resumed", "step": 3}],
    }
    return ResultRecord.model_validate(fields | changes)


def test_the_fields_are_those_of_the_contract() -> None:
    """DESIGN section 3."""
    document = make_record().to_json()
    assert list(document) == [
        "schema", "key", "status", "reason", "spec", "data", "metrics", "main_metric", "cases", "transfer", "cost",
        "environment", "plugins", "events",
    ]  # fmt: skip
    assert document["schema"] == 1
    assert {"kind", "fingerprint", "split"} <= set(document["data"])
    assert set(document["metrics"]["dice"]) == {"value", "low", "high", "unit"}
    assert set(document["cases"]) == {"file", "sha256"}
    assert set(document["cost"]) == {
        "wall_s", "pretrain_s", "samples", "peak_memory_mb", "device", "bytes_up", "bytes_down",
    }  # fmt: skip


def test_nothing_is_lost_in_a_file() -> None:
    record = make_record()
    text = json.dumps(record.to_json(), allow_nan=False)
    again = ResultRecord.model_validate_json(text)
    assert again == record
    assert again.spec.key() == again.key == record.key
    assert again.to_json() == record.to_json()


def test_a_failed_record_needs_only_a_reason() -> None:
    spec = make_spec()
    record = ResultRecord(
        schema=1, key=spec.key(), status="failed", reason="diverged", spec=spec,
        data={"kind": "demo", "fingerprint": "f00d", "split": SPLIT},
    )  # fmt: skip
    assert (record.metrics, record.cases, record.cost) == ({}, None, None)
    assert ResultRecord.model_validate_json(json.dumps(record.to_json())) == record


def test_a_metric_that_no_case_could_give_is_none() -> None:
    metric = Metric(value=None, low=None, high=None, unit="mm")
    assert make_record(metrics={"hd95": metric}).to_json()["metrics"]["hd95"]["value"] is None


@pytest.mark.parametrize(
    ("field", "value"), [("schema", 2), ("status", "running"), ("score", 1.0), ("metrics", {"dice": 0.5}), ("spec", {})]
)
def test_what_is_no_record_of_schema_1_is_refused(field: str, value: Any) -> None:
    document = make_record().to_json() | {field: value}
    with pytest.raises(ValidationError, match=field):
        ResultRecord.model_validate(document)
