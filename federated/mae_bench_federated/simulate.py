"""A stage shared by simulated sites on this machine: what `mae-bench run --sites` runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_bench.engine import loop
from mae_bench.errors import InputError, UsageError
from mae_bench.store import write_bytes, write_json
from mae_bench_federated import policy, privacy, weights
from mae_bench_federated.grids.base import SimulatedGrid
from mae_bench_federated.grids.local import LocalGrid
from mae_bench_federated.rounds import Account, Course, run_rounds
from mae_bench_federated.site import Workplace, draws_of, sites_of

if TYPE_CHECKING:
    from mae_bench.engine import finetune
    from mae_bench_federated.site import Job


def simulate(job: Job) -> dict[str, Any]:
    """Run a job's stage in rounds, or on the one site that was asked for.

    Leaves `site_losses.csv` and `rounds.json` beside what the stage leaves anyway.

    Returns:
        What `job.finish` returns, with bytes_up, bytes_down and the samples of all sites.

    Raises:
        RunFailed: too few sites answered.
        UsageError: the setting or the privacy cannot be had.
        InputError: the cases cannot be divided so.
    """
    if job.setting.accelerator.num_processes > 1:
        raise UsageError("sites are simulated by one process; --site-workers N trains several of them at once")
    place = Workplace.simulated(job)
    if place.federation.only is not None:
        return _alone(place, place.federation.only)
    privacy.check(place.federation)
    policy.check(place.federation)
    course, plan = course_of(place), job.plan()
    course.check, course.check_steps, course.state = plan.check, plan.check_steps(), plan.state
    with _grid(place) as grid:
        account = run_rounds(course, grid)
    # What is no site's business to share is as it was at the start, whoever trained last.
    common = weights.take(job.module)
    job.module.load_state_dict(place.private, strict=False)
    weights.give(job.module, common)
    facts = job.finish(account.history)
    write_account(account, job.folder)
    events = [_members(place), *facts["events"], *_site_scores(job)]
    if job.setting.site_workers:
        how = {"workers": job.setting.site_workers, "engine": job.setting.site_engine}
        events.append({"event": "sites in processes", "stage": job.stage, **how})
    facts["events"] = events
    facts |= {"bytes_up": account.bytes_up, "bytes_down": account.bytes_down}
    if "samples" in facts:
        facts["samples"] = account.samples
    shutil.rmtree(job.folder / "sites", ignore_errors=True)
    return facts


def train_centrally(job: finetune.Job) -> dict[str, Any]:
    """A fine-tuning that sites do not share, scored at each of them as well."""
    facts = job.finish(loop.train(job.plan(), job.setting))
    facts["events"] = [*facts["events"], *_site_scores(job)]
    return facts


def _alone(place: Workplace, site: int) -> dict[str, Any]:
    """What a site has without the others: the same steps on its own cases, no rounds."""
    job = place.job
    if not place.cases[site]:
        raise InputError(
            f"--only {site}: this site has no case to train on in {job.stage}",
            "choose another, more --labels, or fewer --sites",
        )
    plan = replace(place.plan(site), folder=job.folder)
    facts = job.finish(loop.train(plan, job.setting))
    facts["events"] = [_members(place), *facts["events"], *_site_scores(job)]
    return facts


def course_of(place: Workplace) -> Course:
    """Sites without a case of this stage have nothing to train on; with few labels there may be some."""
    job, stage = place.job, place.job.plan().stage
    return Course(
        name=job.stage,
        module=job.module,
        federation=place.federation,
        steps=job.steps,
        samples=stage.batch * stage.crops,
        folder=job.folder,
        reporter=job.setting.reporter,
        draws=draws_of(job),
        sites=[f"site {site}" for site, cases in enumerate(place.cases) if cases],
    )


@contextmanager
def _grid(place: Workplace) -> Iterator[SimulatedGrid]:
    grid = _open(place)
    try:
        yield grid
    finally:
        grid.close()


def _open(place: Workplace) -> SimulatedGrid:
    setting = place.job.setting
    if setting.site_engine == "ray":
        if find_spec("ray") is None:
            raise UsageError("--site-engine ray needs Ray: pip install 'mae-bench[ray]'")
        from mae_bench_federated.grids.pool import PoolGrid
        from mae_bench_federated.grids.ray import RayWorker

        return PoolGrid(place, setting.site_workers or 1, RayWorker)
    if setting.site_workers:
        from mae_bench_federated.grids.pool import PoolGrid

        return PoolGrid(place, setting.site_workers)
    return LocalGrid(place)


def _members(place: Workplace) -> dict[str, Any]:
    counts = {f"site {site}": len(cases) for site, cases in enumerate(place.cases)}
    return {"event": "sites", "stage": place.job.stage, "cases": counts}


def _site_scores(job: Job) -> list[dict[str, Any]]:
    """Score of a fine-tuned model on each site's selection cases, and the worst of them."""
    if job.stage == "finetune":
        own = sites_of(job, job.selection)
        scores = {
            f"site {site}": replace(job, selection=cases).scorer.score() for site, cases in enumerate(own) if cases
        }
        if scores:
            worst = min(scores, key=lambda site: scores[site])
            counts = {f"site {site}": len(cases) for site, cases in enumerate(own) if cases}
            return [
                {"event": "site scores", "stage": job.stage, "scores": scores, "cases": counts,
                 "worst": worst, "worst_score": scores[worst]}
            ]  # fmt: skip
    return []


def write_account(account: Account, folder: Path) -> None:
    """Leave the losses of each site, and what happened in each round."""
    rows = "".join(f"{number},{site},{step},{loss!r}\n" for number, site, step, loss in account.losses)
    write_bytes(folder / "site_losses.csv", f"round,site,step,loss\n{rows}".encode())
    write_json(folder / "rounds.json", account.rounds)
