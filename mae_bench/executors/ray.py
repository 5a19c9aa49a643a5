"""`ray`: one actor per GPU or CPU slot, here or on a cluster. What dies loses only the stage it was doing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from mae_bench.errors import UsageError
from mae_bench.processes import no_collector
from mae_bench.values import Options

if TYPE_CHECKING:
    from mae_bench.grid.work import Outcome, Work

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # read when ray is imported
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "60",
}


class RayOptions(Options):
    """Options of `ray`."""

    address: str = Field(
        "", description="of a running cluster, such as auto or ray://host:10001; empty: start one here"
    )
    slots: int = Field(0, ge=0, le=10_000, description="stages at once; 0: as many as the cluster has room for")
    cpus: float = Field(1, gt=0, le=1024, description="CPU cores of a slot; also its threads")
    gpus: float = Field(
        0, ge=0, le=1, description="GPUs of a slot; below 1, slots share one; 0: 1 where there are GPUs"
    )


class RayExecutor:
    """Runs stages as tasks of a graph: an encoder that ten cells share is made once, then the ten run side by side."""

    name = "ray"
    summary = "Ray: one worker per GPU or CPU slot, on this machine or a cluster that shares the store"
    Options = RayOptions

    @contextmanager
    def open(self, options: RayOptions, reporter: Any) -> Iterator["RayPool"]:
        """Connect to the cluster, or start one that ends with the block.

        Raises:
            UsageError: Ray is not installed, or the cluster has no room for a slot.
        """
        if find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray: pip install 'mae-bench[ray]'")
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        import ray

        started = not ray.is_initialized()
        if started:
            here = {} if options.address else {"include_dashboard": False}
            ray.init(address=options.address or None, log_to_driver=False, logging_level="warning", **here)
        try:
            pool = RayPool(options)
            try:
                yield pool
            finally:
                pool.close()
        finally:
            if started:
                ray.shutdown()


class RayPool:
    """Actors, each doing one stage after the other in a process of its own."""

    def __init__(self, options: RayOptions) -> None:
        import ray

        room = ray.cluster_resources()
        gpus = options.gpus or (1.0 if room.get("GPU", 0) >= 1 else 0.0)
        self.options = options.model_copy(update={"gpus": gpus})
        if self._fitting() < 1:
            raise UsageError(
                f"the Ray cluster has {room.get('CPU', 0):g} CPUs and {room.get('GPU', 0):g} GPUs: no slot"
            )
        self.actor = ray.remote(num_cpus=options.cpus, num_gpus=gpus, max_restarts=0)(_Place)
        self.idle: list[Any] = []
        self.busy: dict[Any, _Busy] = {}

    @property
    def slots(self) -> int:
        """Places the cluster has now: nodes may join, and a lost node takes its places with it."""
        return max(1, min(self.options.slots or self._fitting(), self._fitting()))

    def _fitting(self) -> int:
        import ray

        wanted = {kind: share for kind, share in (("CPU", self.options.cpus), ("GPU", self.options.gpus)) if share}
        rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # Node by node: a slot does not lie on two of them.
        return sum(int(min(room.get(kind, 0) // share for kind, share in wanted.items())) for room in rooms)

    def submit(self, identity: str, work: "Work") -> None:
        """Hand the work to an idle actor, or a new one."""
        place, started = self.idle.pop() if self.idle else self._new_place()
        self.busy[place.perform.remote(work.model_dump_json())] = _Busy(identity, work, place, started)

    def _new_place(self) -> tuple[Any, Any]:
        place = self.actor.remote(max(1, int(self.options.cpus)))
        return place, place.start.remote()

    def wait(self) -> tuple[str, "Outcome"]:
        """The next that ended; an actor that died with its node or by itself is not used again."""
        import ray

        from mae_bench.errors import Interrupted
        from mae_bench.grid.work import Outcome

        (ended, *_), _ = ray.wait(list(self.busy), num_returns=1)
        identity, _, place, started = self.busy.pop(ended)
        try:
            outcome = Outcome.model_validate_json(ray.get(ended))
        except ray.exceptions.RayActorError as error:
            self._dismiss_idle()
            return identity, Outcome(status="lost", reason=str(error).splitlines()[0])
        except ray.exceptions.RayTaskError as error:
            ray.kill(place)
            if isinstance(error.cause, Interrupted):
                return identity, Outcome(status="lost", reason=str(error.cause))
            return identity, Outcome(status="failed", reason=f"{type(error.cause).__name__}: {error.cause}")
        except ray.exceptions.RayError as error:  # killed for memory, an environment that could not be set up
            ray.kill(place)
            return identity, Outcome(status="lost", reason=f"{type(error).__name__}: {str(error).splitlines()[0]}")
        self.idle.append((place, started))
        self._take_over()
        return identity, outcome

    def _dismiss_idle(self) -> None:
        """End the actors that wait: some may have been on the node that was lost, and would each lose a stage."""
        import ray

        for place, _ in self.idle:
            ray.kill(place)
        self.idle.clear()

    def _take_over(self) -> None:
        """Give an idle actor the work of one that waits for room: after a node is lost there may be none for it."""
        import ray

        if len(self.idle) + len(self.busy) <= self._fitting():
            return
        for ticket, (identity, work, place, started) in list(self.busy.items()):
            if self.idle and not ray.wait([started], timeout=0)[0]:
                del self.busy[ticket]
                ray.kill(place)
                self.submit(identity, work)

    def give_up(self, work: "Work", reason: str) -> None:
        """Leave a failed record, from here: for that no place is needed."""
        from mae_bench.grid.work import Worker

        Worker().give_up(work, reason)

    def close(self) -> None:
        """End all actors; what they were doing continues from its checkpoint in the next run."""
        import ray

        for place in [*(place for place, _ in self.idle), *(busy.place for busy in self.busy.values())]:
            ray.kill(place)


class _Busy(NamedTuple):
    """Work at an actor. started: a reference that is there once the actor runs."""

    identity: str
    work: "Work"
    place: Any
    started: Any


class _Place:
    """What runs in an actor's process; texts in and out, so that driver and worker need not share a pickle."""

    def __init__(self, threads: int) -> None:
        # Not as a runtime environment: Ray could not use the processes it has started ahead. The variable is for
        # processes of this one; here torch may be imported already, where the driver's Ray was started by others.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        # Nothing of what is imported is garbage, and looking for some takes a fifth of the time of the imports.
        with no_collector():
            import torch

            from mae_bench.grid.work import Worker
        torch.set_num_threads(threads)
        self.worker = Worker()

    def start(self) -> None:
        """Answer, once this runs."""

    def perform(self, work: str) -> str:
        from mae_bench.grid.work import Work

        return self.worker.perform(Work.model_validate_json(work)).model_dump_json()
