"""Scores a trained model on the test cases, case by case, from the label maps it would hand in."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mae_bench.data import geometry
from mae_bench.data.decathlon import save_nifti
from mae_bench.data.prepared import CaseFacts, Prepared
from mae_bench.engine import loop, pictures
from mae_bench.engine.predict import label_map, predictions
from mae_bench.errors import InputError
from mae_bench.interfaces import Dataset, RawCase
from mae_bench.metrics.segmentation import dice, hd95
from mae_bench.spec import RunSpec
from mae_bench.stats.summary import Scores, summarise_findings, summarise_regions, summarise_risks
from mae_bench.store import write_bytes
from mae_bench.task import Protocol, Task


def evaluate(
    model: nn.Module,
    spec: RunSpec,
    task: Task,
    dataset: Dataset,
    prepared: Prepared,
    raw: dict[str, RawCase],
    root: Path,
    test: Sequence[str],
    folder: Path,
    setting: loop.Setting,
) -> Scores:
    """Predict and score every test case; leaves predictions as NIfTI and `overlays.png` in `folder`.

    Raises:
        InputError: a test case has no label.
    """
    model.eval()
    if unlabelled := [case for case in test if not prepared.facts[case].labelled and task.kind == "segmentation"]:
        raise InputError(f"test cases without labels: {', '.join(unlabelled)}")
    setting.reporter.start("evaluate", len(test))
    rows: list[dict[str, Any]] = []
    slices = []
    found_of = predictions(model, prepared, test, task, spec.recipe, setting.accelerator)
    for number, (case, scores) in enumerate(found_of, 1):
        facts = prepared.facts[case]
        if task.kind != "segmentation":
            rows.append({"case": case} | _findings(task, facts, scores))
        else:
            on_prepared, on_native = label_map(scores, task), label_map(scores, task, facts)
            label = np.asarray(prepared.case(case).label())
            if spec.protocol.scored_on == "native":
                found = score_case(on_native, native_truth(dataset, raw[case], root), task, spec.protocol, facts)
            else:
                found = score_case(on_prepared, label, task, spec.protocol, facts)
            rows.append({"case": case} | found)
            slices.append(pictures.widest_slice(case, prepared.case(case).image()[0], label, on_prepared))
            _save_prediction(on_native, facts, folder)
        setting.reporter.advance(number)
    cases = pd.DataFrame(rows)
    if task.kind == "survival":
        return summarise_risks(cases)
    if task.kind == "classification":
        return summarise_findings(cases, task)
    pictures.overlays(slices, cases["dice"].to_numpy(float), task, folder / "overlays.png")
    pictures.keep_slices(slices, folder / pictures.SLICES)
    return summarise_regions(cases, task, spec.protocol)


def native_truth(dataset: Dataset, case: RawCase, root: Path) -> NDArray[Any]:
    """The label as its file holds it; in RAS order if it has an affine."""
    raw = dataset.read(case, root)
    assert raw.label is not None
    return raw.label if raw.affine is None else geometry.to_ras(raw.label, geometry.orientation_of(raw.affine))


def score_case(
    painted: NDArray[np.uint8], truth: NDArray[Any], task: Task, protocol: Protocol, facts: CaseFacts
) -> dict[str, float]:
    """Dice and HD95 of each region, and their means over headline regions, of two label maps on one grid."""
    spacing = facts.native_spacing if protocol.scored_on == "native" else facts.spacing
    if protocol.distance_unit == "voxel":
        spacing = (1.0,) * len(spacing)
    found: dict[str, float] = {}
    for region in task.regions:
        pair = (np.isin(painted, region.labels), np.isin(truth, region.labels))
        found[f"dice/{region.name}"] = dice(*pair, protocol.empty)
        found[f"hd95/{region.name}"] = hd95(*pair, spacing, protocol.empty)
    for metric in ("dice", "hd95"):
        values = np.array([found[f"{metric}/{region.name}"] for region in task.regions if region.headline])
        values = values[np.isfinite(values)]
        found[metric] = float(values.mean()) if len(values) else float("nan")
    return found


def _findings(task: Task, facts: CaseFacts, scores: NDArray[np.float32]) -> dict[str, float]:
    if task.kind == "survival":
        return {"time": facts.findings[0], "event": facts.findings[1], "risk": float(scores[0])}
    return {f"truth/{name}": facts.findings[column] for column, name in enumerate(task.findings)} | {
        f"score/{name}": float(scores[column]) for column, name in enumerate(task.findings)
    }


def _save_prediction(painted: NDArray[np.uint8], facts: CaseFacts, folder: Path) -> None:
    """Write the label map as the case's own label file would be: same orientation, same affine; PNG without one."""
    if facts.affine is None:
        buffer = io.BytesIO()
        Image.fromarray(painted).save(buffer, "png")
        write_bytes(folder / "predictions" / f"{facts.id}.png", buffer.getvalue())
        return
    affine = np.array(facts.affine)
    native = geometry.from_ras(painted, geometry.orientation_of(affine))
    save_nifti(folder / "predictions" / f"{facts.id}.nii.gz", np.ascontiguousarray(native), affine)
