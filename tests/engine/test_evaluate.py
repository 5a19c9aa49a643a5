"""Scores of label maps: which regions make the mean."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from mae_bench.data.prepared import CaseFacts
from mae_bench.engine import finetune
from mae_bench.engine.evaluate import score_case
from mae_bench.stats.summary import summarise_regions
from mae_bench.task import Intensity, Preprocessing, Protocol, Region, Task

FACTS = CaseFacts(
    id="a", folder="", subject="a", sha256="", affine=None, native_shape=(6, 6, 6), native_spacing=(1.0, 1.0, 1.0),
    start=(0, 0, 0), cropped=(6, 6, 6), shape=(6, 6, 6), spacing=(1.0, 1.0, 1.0), labelled=True, points={},
)  # fmt: skip
RULES = Protocol(name="test", summary="", preprocessing=Preprocessing(intensity=Intensity(kind="zscore")))


def task(*headline: bool) -> Task:
    return Task(
        kind="segmentation",
        channels=("CT",),
        labels={value: f"organ {value}" for value in range(1, len(headline) + 1)},
        regions=tuple(
            Region(name=f"organ {value}", labels=(value,), paint=value, headline=counts)
            for value, counts in enumerate(headline, 1)
        ),
    )


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth: organ 1 is right, of organ 2 half is found, organ 3 is missed."""
    truth = np.zeros((6, 6, 6), np.uint8)
    truth[0], truth[2, :4], truth[4] = 1, 2, 3
    painted = truth.copy()
    painted[2, :2], painted[4] = 0, 0
    return painted, truth


def test_every_region_counts_unless_it_says_otherwise() -> None:
    found = score_case(*maps(), task(True, True, True), RULES, FACTS)
    assert found["dice"] == pytest.approx(np.mean([1.0, 2 / 3, 0.0]))
    assert Region(name="x", labels=(1,), paint=1).headline


def test_only_headline_regions_make_the_means_and_all_are_scored() -> None:
    found = score_case(*maps(), task(True, True, False), RULES, FACTS)
    assert found["dice"] == pytest.approx(np.mean([1.0, 2 / 3]))
    assert found["hd95"] == pytest.approx((found["hd95/organ 1"] + found["hd95/organ 2"]) / 2)
    assert found["dice/organ 3"] == 0.0
    assert found["hd95/organ 3"] == pytest.approx(np.sqrt(3 * 6**2))


def test_the_summary_has_every_region() -> None:
    import pandas as pd

    which = task(True, False, False)
    cases = pd.DataFrame([{"case": name} | score_case(*maps(), which, RULES, FACTS) for name in "ab"])
    scores = summarise_regions(cases, which, RULES)
    assert scores.main == "dice"
    assert scores.metrics["dice"].value == 1.0
    assert scores.metrics["dice/organ 3"].value == 0.0


@pytest.mark.parametrize(("headline", "expected"), [((True, True, True), 5 / 9), ((False, True, False), 2 / 3)])
def test_the_checkpoint_is_chosen_by_the_same_regions(
    headline: tuple[bool, ...], expected: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The selection score of a model that answers with the half-right map."""
    painted, truth = maps()
    which = task(*headline)
    answer = torch.nn.functional.one_hot(torch.from_numpy(painted).long(), 4).movedim(-1, 0).float().numpy()
    monkeypatch.setattr(finetune, "predictions", lambda *args: iter([("a", answer)]))
    prepared: Any = SimpleNamespace(case=lambda name: SimpleNamespace(label=lambda: truth))
    spec: Any = SimpleNamespace(protocol=RULES, recipe=None)
    setting: Any = SimpleNamespace(accelerator=Accelerator(cpu=True))
    scorer = finetune._Selection(torch.nn.Identity(), spec, which, prepared, ["a"], setting)
    assert scorer.score() == pytest.approx(expected)
