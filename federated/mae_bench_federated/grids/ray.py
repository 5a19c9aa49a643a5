"""Workers that Ray places, on this machine or on its cluster. The store must lie where all of them see it."""

from typing import Any

import ray
import torch
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
        share = min(1.0, torch.cuda.device_count() * bench.threads / torch.get_num_threads())
        actor: Any = ray.remote(num_cpus=bench.threads, num_gpus=share)(_Actor)
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
