"""Workers that Ray places, on this machine or on its cluster. The store must lie where all of them see it."""

from typing import Any

import ray
from flwr.app import Context, Message

from mae_bench_federated import client_app
from mae_bench_federated.grids.worker import Bench, WorkerDied


class _Actor:
    """The worker's side."""

    def __init__(self, bench: Bench) -> None:
        bench.set_up()

    def handle(self, message: Message, context: Context) -> Message:
        """The client app's reply."""
        return client_app.app(message, context)


class RayWorker:
    """A worker that is an actor of Ray, with an equal share of the CPUs, and of the GPUs if there are any."""

    def __init__(self, bench: Bench) -> None:
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False)
        room = ray.cluster_resources()
        cpus, gpus = (room.get(kind, 0) / bench.workers for kind in ("CPU", "GPU"))
        # Never more than there is for each: an actor without a place would be waited for without end.
        cpus = min(bench.threads, int(cpus) if cpus >= 1 else cpus)
        actor: Any = ray.remote(num_cpus=cpus, num_gpus=min(1.0, gpus))(_Actor)
        self.actor = actor.remote(bench)

    def handle(self, message: Message, context: Context, timeout: float | None) -> Message:
        """Hand it over, and wait."""
        try:
            answer = ray.get(self.actor.handle.remote(message, context), timeout=timeout)
        except ray.exceptions.GetTimeoutError as error:
            self.stop()
            raise TimeoutError from error
        except ray.exceptions.RayActorError as error:
            raise WorkerDied from error
        assert isinstance(answer, Message)
        return answer

    def stop(self) -> None:
        """End the actor."""
        ray.kill(self.actor)
