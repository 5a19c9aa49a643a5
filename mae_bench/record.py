"""ResultRecord, schema 1: what a run leaves behind for others to trust."""

from typing import Any, Literal

from pydantic import Field

from mae_bench.spec import RunSpec
from mae_bench.task import Split
from mae_bench.values import Value


class Metric(Value):
    """A score over the test cases with its 95 % interval. None where no case could be scored."""

    value: float | None
    low: float | None
    high: float | None
    unit: str


class Identity(Value):
    """By what a case is known again elsewhere: whom it shows, and the contents of its files."""

    subject: str
    sha256: str


class RecordData(Value):
    """Which images were used, on which side."""

    kind: Literal["demo", "real"]
    fingerprint: str
    split: Split
    labelled: tuple[str, ...] = Field((), description="training cases whose labels were used")
    skipped: dict[str, str] = Field(default_factory=dict, description="cases left out by --skip-bad, with the reason")
    identities: dict[str, Identity] = Field(default_factory=dict, description="of the cases of the split")
    pretrained_on: tuple[Identity, ...] | None = Field(
        None, description="cases that weights from elsewhere were made from, if a manifest beside them says so"
    )


class CaseFile(Value):
    """The per-case scores beside the record."""

    file: str
    sha256: str


class Cost(Value):
    """What the run cost, this time: an interrupted run counts what all its parts took."""

    wall_s: float
    pretrain_s: float
    samples: int = Field(description="crops seen by the pre-training")
    peak_memory_mb: float
    device: str
    bytes_up: int = 0
    bytes_down: int = 0


class Transfer(Value):
    """What became of the pre-trained encoder's parameters, as shares of the encoder's parameter count."""

    source: str = Field(description="pre-training that the encoder came from, or `none`")
    loaded: float = 0.0
    resized: float = 0.0
    inflated: float = 0.0
    random: float = 1.0
    details: tuple[str, ...] = ()
    waived: bool = False


class Distribution(Value):
    """Where a plugin came from."""

    dist: str
    version: str


class ResultRecord(Value):
    """One finished or failed run."""

    schema_version: Literal[1] = Field(1, alias="schema")
    key: str
    status: Literal["ok", "failed"]
    reason: str = ""
    spec: RunSpec
    data: RecordData
    metrics: dict[str, Metric] = Field(default_factory=dict)
    main_metric: str = ""
    cases: CaseFile | None = None
    transfer: Transfer | None = None
    cost: Cost | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    plugins: dict[str, Distribution] = Field(default_factory=dict)
    events: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON document of the contract."""
        return self.model_dump(mode="json", by_alias=True)
