"""The server between hospitals: it has no images, only the study, and a folder that it continues from."""

import fcntl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from mae_bench.cli.output import PlainReporter
from mae_bench.engine import loop, pretrain
from mae_bench.engine.device import make_accelerator
from mae_bench.engine.weights import save_weights
from mae_bench.errors import InputError
from mae_bench.registry import registry
from mae_bench.store import write_bytes, write_json
from mae_bench_federated.build import build_objective
from mae_bench_federated.messages import Malformed
from mae_bench_federated.rounds import Account, Course, run_rounds
from mae_bench_federated.simulate import write_account
from mae_bench_federated.site import draws_of
from mae_bench_federated.study import Study, read_study

POLL = 2.0  # seconds between looks for nodes

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study of the run's configuration, or go on with it."""
    config = context.run_config
    try:
        study = read_study(config.get("study"), config.get("recipe-hash"))
    except Malformed as error:
        raise InputError(f"run configuration: {error}") from error
    names = [name.strip() for name in str(config.get("sites", "")).split(",") if name.strip()]
    federation = study.spec.federation
    assert federation is not None
    if len(names) != federation.sites:
        raise InputError(f"run configuration: sites: {len(names)} names for {federation.sites} sites")
    serve(grid, study, Path(str(config["out"])), names, float(config.get("wait", 60)))


def serve(grid: Grid, study: Study, out: Path, sites: Sequence[str], wait: float) -> Account:
    """Run the rounds of a study; leaves the encoder, losses, events and rounds in `out`.

    Args:
        sites: names under which the hospitals' nodes are registered.
        wait: seconds a round waits for nodes that are not connected.

    Raises:
        RunFailed: too few sites answered.
        InputError: another run of the study is at work in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: this study is at work there already", "`flwr list` shows the runs") from None
        return _serve(grid, study, out, sites, wait)


def _serve(grid: Grid, study: Study, out: Path, sites: Sequence[str], wait: float) -> Account:
    spec, federation = study.spec, study.spec.federation
    assert federation is not None
    write_json(out / "study.json", study.model_dump(mode="json"))
    objective = build_objective(spec, study.task, registry())
    nowhere: Any = None  # images there are none here
    job = pretrain.Job(spec, study.task, objective, nowhere, (), out, loop.Setting(make_accelerator()))
    course = Course(
        name=job.stage,
        module=job.module,
        federation=federation,
        steps=job.steps,
        samples=spec.recipe.pretrain.batch * spec.recipe.pretrain.crops,
        folder=out,
        reporter=PlainReporter(),
        sites=sites,
        draws=draws_of(job),
        told=lambda events: write_json(out / "events.json", events),
        wire=True,
        secret=True,
        find_nodes=lambda grid, chosen: wait_for_nodes(grid, chosen, wait),
    )
    account = run_rounds(course, grid)
    save_weights(objective.encoder, out / pretrain.WEIGHTS)
    pretrain.write_losses(account.history.losses, out / "losses.csv")
    write_account(account, out)
    write_json(out / "events.json", account.history.events)
    write_bytes(out / "done", study.key().encode())
    return account


def wait_for_nodes(grid: Grid, sites: Sequence[str], wait: float) -> Mapping[str, int]:
    """Nodes of the named sites: all of them, or after `wait` seconds those that are there."""
    until = time.monotonic() + wait
    while True:
        found = {node.name: node.node_id for node in grid.get_nodes() if node.name in sites}
        if len(found) == len(sites) or time.monotonic() > until:
            return {site: found[site] for site in sites if site in found}
        time.sleep(POLL)
