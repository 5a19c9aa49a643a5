"""Small stages for tests of what sites share: real cases, a real plan, seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from mae_bench.data.source import open_data
from mae_bench.engine import finetune, loop, pretrain
from mae_bench.engine.device import make_accelerator
from mae_bench.registry import registry
from mae_bench.resolve import Request, resolve
from mae_bench.run import make_cell
from mae_bench.store import Store

MNI = {"dataset.subjects": "9", "dataset.spacing": "6"}
COMMAND = [str(Path(sys.executable).parent / "mae-bench")]
RUN = ["run", "--dataset", "mni152", "--recipe", "smoke", "--set", "dataset.subjects=9", "--set", "dataset.spacing=6"]


def make_cell_of(store: Path, pretraining: str = "mae", head: str | None = None, **settings: Any) -> Any:
    """A cell on nine coarse brains. settings: `federation__sites=4` is `--set federation.sites=4`."""
    given = MNI | {name.replace("__", "."): json.dumps(value) for name, value in settings.items()}
    given = {name: value.strip('"') for name, value in given.items()}
    backbone = given.pop("backbone", "vit")
    chosen = resolve(
        Request("mni152", pretraining, backbone=backbone, head=head, recipe="smoke", settings=given), registry()
    )
    data = open_data(
        chosen.plugin("dataset"), chosen.options["dataset"], Store(store), data=None, demo=False, protocol=None
    )
    return make_cell(chosen, data, labels=1.0, seed=0, pretrain_seed=0)


def pretrain_job(store: Path, folder: Path, pretraining: str = "mae", **settings: Any) -> pretrain.Job:
    """The pre-training of such a cell, with new weights each time."""
    cell = make_cell_of(store, pretraining, **settings)
    spec, chosen, data = cell.spec, cell.chosen, cell.data
    torch.manual_seed(spec.pretrain_seed)
    encoder = chosen.plugin("backbone").build(chosen.options["backbone"], len(data.task.channels), spec.recipe.roi)
    objective = chosen.plugin("pretrain").objective(chosen.options["pretrain"], encoder)
    folder.mkdir(parents=True, exist_ok=True)
    return pretrain.Job(
        spec, data.task, objective, data.prepared, data.split.train, folder, loop.Setting(make_accelerator())
    )


def finetune_job(store: Path, folder: Path, **settings: Any) -> finetune.Job:
    """The fine-tuning of such a cell from random weights."""
    cell = make_cell_of(store, "scratch", **settings)
    chosen, recipe, data = cell.chosen, cell.spec.recipe, cell.data
    torch.manual_seed(cell.spec.seed)
    encoder = chosen.plugin("backbone").build(
        chosen.options["backbone"], len(data.task.channels), recipe.roi, drop_path=recipe.finetune.drop_path
    )
    model = chosen.plugin("head").build(chosen.options["head"], encoder, data.task)
    folder.mkdir(parents=True, exist_ok=True)
    return finetune.Job(
        cell.spec, data.task, model, data.prepared, cell.labelled, data.split.val, folder,
        loop.Setting(make_accelerator()), 0, data.split.train,
    )  # fmt: skip


def mae_bench(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **options.pop("env", {})}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, **options
    )


def run_json(*arguments: Any) -> Any:
    """Run a command that must succeed; its one JSON document."""
    done = mae_bench(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
