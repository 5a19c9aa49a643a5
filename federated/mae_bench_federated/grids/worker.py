"""One worker: a process that trains whichever site it is handed, with a module of its own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from flwr.app import Context, Message
from torch import Tensor

from mae_bench.data.prepared import Prepared
from mae_bench.engine import finetune, loop, pretrain
from mae_bench.engine.device import make_accelerator
from mae_bench.errors import Interrupted
from mae_bench.registry import registry
from mae_bench.spec import RunSpec
from mae_bench.task import Task
from mae_bench_federated import client_app
from mae_bench_federated.build import build_model, build_objective
from mae_bench_federated.partition import Sites
from mae_bench_federated.site import Workplace

NAME = "worker"


class WorkerDied(Exception):
    """The process ended before it answered, or was ended because it was too late."""


class Worker(Protocol):
    """Trains sites in another process."""

    def handle(self, message: Message, context: Context, timeout: float | None) -> Message:
        """The client app's reply. Raises WorkerDied, TimeoutError."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True)
class Bench:
    """All that a worker needs to set up its workplace. threads: of this worker. gpu: which it uses, of several."""

    spec: RunSpec
    stage: str
    task: Task
    prepared: Prepared
    cases: tuple[str, ...]
    selection: tuple[str, ...]
    train: tuple[str, ...]
    extra_steps: int
    folder: Path
    sites: Sites
    private: Mapping[str, Tensor]
    compile: bool
    threads: int
    workers: int
    gpu: str | None = None

    @classmethod
    def of(cls, place: Workplace, workers: int) -> "Bench":
        """What a workplace says of itself."""
        job = place.job
        return cls(
            job.spec, job.stage, job.task, job.prepared, tuple(job.cases), tuple(getattr(job, "selection", ())),
            tuple(getattr(job, "train", ())), getattr(job, "extra_steps", 0), job.folder, place.cases, place.private,
            job.setting.compile, max(1, torch.get_num_threads() // workers), workers,
        )  # fmt: skip

    def set_up(self) -> None:
        """Make the workplace of this process."""
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu
        torch.set_num_threads(self.threads)
        setting = loop.Setting(make_accelerator(), compile=self.compile)
        job: pretrain.Job | finetune.Job
        if self.stage == "pretrain":
            objective = build_objective(self.spec, self.task, registry())
            job = pretrain.Job(self.spec, self.task, objective, self.prepared, self.cases, self.folder, setting)
        else:
            model = build_model(self.spec, self.task, registry())
            job = finetune.Job(
                self.spec, self.task, model, self.prepared, self.cases, self.selection, self.folder, setting,
                self.extra_steps, self.train,
            )  # fmt: skip
        place = Workplace(job, self.sites)
        place.private = self.private
        client_app.work_at(NAME, place)


class ProcessWorker:
    """A worker in a process of this machine. It ends with this one, at the latest after the site at hand."""

    def __init__(self, bench: Bench) -> None:
        context = get_context("spawn")
        self.here, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, bench), daemon=True)
        self.process.start()
        there.close()

    def handle(self, message: Message, context: Context, timeout: float | None) -> Message:
        """Hand it over, and wait."""
        try:
            self.here.send((message, context))
            if not self.here.poll(timeout):
                self.stop()
                raise TimeoutError
            answer: Any = self.here.recv()
        except (EOFError, ConnectionError) as error:
            self.stop()
            raise WorkerDied from error
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Message)
        return answer

    def stop(self) -> None:
        """Kill it: what it was doing is repeated, or nobody's concern."""
        self.process.kill()
        self.process.join()
        self.here.close()


def _serve(connection: Connection, bench: Bench) -> None:
    bench.set_up()
    while True:
        try:
            message, context = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer: Message | Exception = client_app.app(message, context)
        except Interrupted as error:
            answer = error
        connection.send(answer)
