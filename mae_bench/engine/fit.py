"""Heads that are not trained but remember the features of the labelled cases."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mae_bench.data.prepared import Prepared
from mae_bench.engine.loop import Setting
from mae_bench.engine.predict import middle_crop
from mae_bench.spec import RunSpec


@torch.inference_mode()
def fit(model: Any, spec: RunSpec, prepared: Prepared, labelled: Sequence[str], setting: Setting) -> dict[str, Any]:
    """Hand the pooled features of the middle crop of every labelled case, and its findings, to the model.

    Returns:
        Facts for the stage file, as `engine.finetune.finetune`.
    """
    began, accelerator = time.monotonic(), setting.accelerator
    model.to(accelerator.device).eval()
    setting.reporter.start("fit", len(labelled))
    features = []
    for number, case in enumerate(labelled, 1):
        image = torch.from_numpy(np.array(prepared.case(case).image()))[None].to(accelerator.device).float()
        with accelerator.autocast():
            features.append(model.encoder(middle_crop(image, spec.recipe.roi)).pooled.float())
        setting.reporter.advance(number)
    findings = torch.tensor([prepared.facts[case].findings for case in labelled], device=accelerator.device)
    model.remember(torch.cat(features), findings)
    return {"seconds": time.monotonic() - began, "events": [], "losses": [], "selection": []}
