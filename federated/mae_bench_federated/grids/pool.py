"""Sites in worker processes, several at once; a worker that dies costs only the site it had."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

import torch
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from mae_bench_federated.grids.base import SimulatedGrid
from mae_bench_federated.grids.worker import NAME, Bench, ProcessWorker, Worker, WorkerDied
from mae_bench_federated.site import Workplace


def visible_gpus() -> list[str]:
    """Names of the GPUs this process may use, if several: each worker is given one. Ray gives out its own."""
    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found = names.split(",")[:count] if names else [str(number) for number in range(count)]
    return found if len(found) > 1 else []


class PoolGrid(SimulatedGrid):
    """Hands each message to a free worker. Which one it is decides nothing: a site's state is on disk."""

    def __init__(self, place: Workplace, workers: int, hire: Callable[[Bench], Worker] = ProcessWorker) -> None:
        super().__init__(len(place.cases), {"workplace": NAME, "wire": True})
        workers = min(workers, len(place.cases))
        bench, gpus = Bench.of(place, workers), visible_gpus() if hire is ProcessWorker else []
        self.benches = [replace(bench, gpu=gpus[number % len(gpus)] if gpus else None) for number in range(workers)]
        self.hire, self.workers = hire, [hire(each) for each in self.benches]
        self.threads = ThreadPoolExecutor(workers)

    def answer(self, messages: Sequence[Message], timeout: float | None) -> Iterable[Message]:
        """Replies as they come. The deadline is that of each message from when a worker takes it up."""
        free: SimpleQueue[int] = SimpleQueue()
        for number in range(len(self.workers)):
            free.put(number)

        def handle(message: Message) -> Message | None:
            number = free.get()
            try:
                return self.workers[number].handle(message, self.context(self.site_of(message)), timeout)
            except (WorkerDied, TimeoutError) as error:
                self.workers[number] = self.hire(self.benches[number])
                if isinstance(error, TimeoutError):
                    return None
                crashed = Error(ErrorCode.CLIENT_APP_CRASHED, "its process ended")
                return Message(crashed, reply_to=message)
            finally:
                free.put(number)

        return [reply for reply in self.threads.map(handle, messages) if reply is not None]

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.stop()
        self.threads.shutdown()
