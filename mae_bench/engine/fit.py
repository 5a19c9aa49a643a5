"""Heads that are not trained but remember the features of the labelled cases."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from mae_bench.data.prepared import Prepared
from mae_bench.engine.loop import Setting
from mae_bench.engine.predict import middle_crops
from mae_bench.spec import RunSpec


# Not inference mode: what is remembered must be an ordinary tensor, that a state can later be loaded into.
@torch.no_grad()
def fit(model: Any, spec: RunSpec, prepared: Prepared, labelled: Sequence[str], setting: Setting) -> dict[str, Any]:
    """Hand the pooled features of the middle crop of every labelled case, and its findings, to the model.

    Cases go through the encoder `recipe.finetune.batch` at a time.

    Returns:
        Facts for the stage file, as `engine.finetune.finetune`.
    """
    began, accelerator, batch = time.monotonic(), setting.accelerator, spec.recipe.finetune.batch
    model.to(accelerator.device).eval()
    setting.reporter.start("fit", len(labelled))
    features = []
    for first in range(0, len(labelled), batch):
        some = labelled[first : first + batch]
        crops = middle_crops(prepared, some, spec.recipe.roi)
        with accelerator.autocast():
            features.append(model.encoder(crops.to(accelerator.device).float()).pooled.float())
        setting.reporter.advance(first + len(some))
    findings = torch.tensor([prepared.facts[case].findings for case in labelled], device=accelerator.device)
    model.remember(torch.cat(features), findings)
    return {"seconds": time.monotonic() - began, "events": [], "losses": [], "selection": []}
