"""Records with their per-case scores, as `leaderboard add` leaves them, drawn instead of trained."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mae_bench.record import Metric, ResultRecord
from mae_bench.spec import RunSpec
from mae_bench.stats.summary import point_values, summarise
from mae_bench.values import digest
from tests.test_record import make_record
from tests.test_spec import change

CASES = [f"case_{number:02}" for number in range(12)]
SPLIT = {"train": [f"train_{number}" for number in range(8)], "val": ["val_0", "val_1"], "test": CASES}
IDENTITIES = {
    case: {"subject": f"subject of {case}", "sha256": hashlib.sha256(case.encode()).hexdigest()}
    for case in (*SPLIT["train"], *SPLIT["val"], *SPLIT["test"])
}
DEMO, REAL = "mni152-clean-v1-demo", "brats-clean-v1"


def make_run(
    changes: dict[str, Any] | None = None,
    *,
    shift: float = 0.0,
    kind: str = "real",
    intervals: bool = True,
    cases: pd.DataFrame | None = None,
    data: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[ResultRecord, pd.DataFrame]:
    """A record that keeps every rule, and its scores.

    Args:
        changes: values at dotted paths of the specification.
        shift: of the scores of all cases.
        data: other values for fields of the record's data.
        fields: other values for fields of the record.
    """
    split = (data or {}).get("split", SPLIT)
    spec = change({"data.kind": kind, "data.split": digest(split), "data.skipped": []} | (changes or {}))
    table = draw_scores(spec, shift) if cases is None else cases
    if intervals:
        metrics = summarise(table, spec.protocol).metrics
    else:
        metrics = {
            name: Metric(value=value, low=value - 0.05, high=value + 0.05, unit="mm" if "hd95" in name else "1")
            for name, value in point_values(table).items()
        }
    text = csv_of(table)
    about = {
        "kind": kind, "fingerprint": spec.data.fingerprint, "split": split, "labelled": split["train"][:4],
        "skipped": dict.fromkeys(spec.data.skipped, "torn"), "identities": IDENTITIES,
    } | (data or {})  # fmt: skip
    made = {
        "data": about, "metrics": metrics, "main_metric": next(iter(metrics)),
        "cases": {"file": f"{spec.key()}.cases.csv", "sha256": hashlib.sha256(text).hexdigest()},
    } | fields  # fmt: skip
    return make_record(spec, **made), table


def draw_scores(spec: RunSpec, shift: float) -> pd.DataFrame:
    """Dice and HD95 of a segmentation: hard and easy cases, a little luck of each seed."""
    hard = np.random.default_rng(0).uniform(0.3, 0.7, len(CASES))
    luck = np.random.default_rng([spec.seed, int(spec.key()[:8], 16)]).normal(0, 0.02, (2, len(CASES)))
    dice = np.clip(hard + shift + luck[0], 0, 1)
    return pd.DataFrame({"case": CASES, "dice": dice, "hd95": 5 + 20 * (1 - dice) + luck[1]})


def csv_of(table: pd.DataFrame) -> bytes:
    """As a run writes it."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def write_run(folder: Path, run: tuple[ResultRecord, pd.DataFrame]) -> Path:
    """Write a record and its scores into a folder of records."""
    record, table = run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{record.key}.cases.csv").write_bytes(csv_of(table))
    path = folder / f"{record.key}.json"
    path.write_text(json.dumps(record.to_json()))
    return path


def write_curves(folder: Path, key: str, sites: bool = False) -> None:
    """Curves beside a record."""
    rows = [
        f"{curve},{step},{1 / step + offset}"
        for curve, offset in (("pretrain", 0), ("selection", 0.3))
        for step in (1, 5, 9)
    ]
    (folder / f"{key}.losses.csv").write_text("\n".join(["curve,step,value", *rows]) + "\n")
    if sites:
        lines = [
            f"{turn},site-{site},{step},{1 / turn + site}" for turn in (1, 2, 3) for site in (0, 1) for step in (1, 2)
        ]
        (folder / f"{key}.site_losses.csv").write_text("\n".join(["round,site,step,loss", *lines]) + "\n")


def write_many(root: Path, records: int, seeds: int) -> None:
    """One board of so many records: methods that differ in their mask ratio, each under so many seeds."""
    for number in range(records // seeds):
        for seed in range(seeds):
            changes = {
                "pretrain.options": {"ratio": round(0.1 + 0.8 * number / records, 6)},
                "seed": seed,
                "pretrain_seed": seed,
            }
            run = make_run(changes, shift=0.2 * np.sin(number), intervals=False)
            write_run(root / REAL / "records", run)
