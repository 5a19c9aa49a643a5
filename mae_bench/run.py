"""One cell in, one record out: a straight line from images to a score with its interval."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import load as from_safetensors
from torch import nn

from mae_bench.data.manifest import read_manifest, write_manifest
from mae_bench.data.source import Data
from mae_bench.data.split import labelled_subset
from mae_bench.engine import device, finetune, loop, pretrain
from mae_bench.engine.evaluate import evaluate
from mae_bench.engine.fit import fit
from mae_bench.engine.layouts import read_weights
from mae_bench.engine.loop import Setting
from mae_bench.engine.onednn import use_onednn
from mae_bench.engine.transfer import load_encoder
from mae_bench.engine.weights import load_weights, save_weights
from mae_bench.errors import InputError, RunFailed, UsageError
from mae_bench.record import CaseFile, Cost, Distribution, Identity, RecordData, ResultRecord, Transfer
from mae_bench.registry import Registry
from mae_bench.resolve import Chosen
from mae_bench.spec import Choice, DataSource, RunSpec
from mae_bench.stats.summary import Scores
from mae_bench.store import Store, write_bytes
from mae_bench.values import digest

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Cell:
    """A specification with the plugin objects and the data it names."""

    spec: RunSpec
    chosen: Chosen
    data: Data

    @property
    def extra_steps(self) -> int:
        """Fine-tuning steps that a method gets on top of the recipe's, for equal budgets."""
        stage, pretrain = self.spec.recipe.finetune, self.chosen.plugin("pretrain")
        samples = pretrain.extra_samples(self.chosen.options["pretrain"], self.spec.recipe, len(self.data.split.train))
        return -(-int(samples) // (stage.batch * stage.crops))

    @property
    def labelled(self) -> tuple[str, ...]:
        """Training cases whose labels this run may use."""
        facts, kind = self.data.prepared.facts, self.data.task.kind
        usable = [case for case in self.data.split.train if facts[case].labelled or kind != "segmentation"]
        if not usable:
            raise InputError(f"{self.data.root}: no labelled training case")
        return labelled_subset(usable, self.spec.labels, self.spec.seed)


def make_cell(chosen: Chosen, data: Data, *, labels: float, seed: int, pretrain_seed: int) -> Cell:
    """Complete the specification with the data's fingerprint and protocol."""
    picks = {
        kind: Choice(name=listed.plugin.name, options=chosen.recorded(kind)) for kind, listed in chosen.plugins.items()
    }
    start = chosen.source()
    source = DataSource(
        kind=data.kind,
        fingerprint=data.prepared.fingerprint,
        split=digest(data.split.model_dump(mode="json")),
        skipped=tuple(sorted(data.prepared.problems)),
    )
    spec = RunSpec(
        data=source,
        protocol=data.protocol,
        recipe=chosen.recipe,
        labels=labels,
        start="" if start is None else hashlib.sha256(start.path.read_bytes()).hexdigest(),
        seed=seed,
        pretrain_seed=pretrain_seed,
        federation=chosen.federation,
        **picks,
    )
    return Cell(spec, chosen, data)


def run(cell: Cell, store: Store, setting: Setting, registry: Registry) -> ResultRecord:
    """Run the cell, or serve its finished record.

    Raises:
        RunFailed: the run diverged or ran out of memory; a record with status `failed` is left.
        Interrupted: a signal came; the same call continues.
    """
    key = cell.spec.key()
    # Looked at before the lock is taken, so that a finished store can be read from a read-only disk.
    if (present := _finished_record(store, key, setting)) is not None:
        return present
    with _claim(store, "models", key, setting):
        if (present := _finished_record(store, key, setting)) is not None:
            return present
        main = setting.accelerator.is_main_process
        try:
            device.forget_peak_memory(setting.accelerator.device)
            with _memory_explained():
                trained = _train(cell, key, store, setting, registry)
                if main:
                    record = _score(cell, key, store, setting, trained)
                    store.write_record(record)
                    registry.manager.hook.mae_bench_recorded(record=record)
        except RunFailed as error:
            if main:
                record_failure(cell, store, str(error))
            raise
        setting.accelerator.wait_for_everyone()
    written = store.read_record(key)
    assert written is not None
    return written


def _finished_record(store: Store, key: str, setting: Setting) -> ResultRecord | None:
    """The record if the cell is done. The main process looks, so that all processes go the same way."""
    found = [store.read_record(key) if setting.accelerator.is_main_process else None]
    broadcast_object_list(found)
    return found[0] if found[0] is not None and found[0].status == "ok" else None


def _finished(store: Store, kind: str, key: str, setting: Setting) -> dict[str, Any] | None:
    """What a finished stage left. The main process looks, so that all processes go the same way."""
    found = [store.finished(kind, key) if setting.accelerator.is_main_process else None]
    broadcast_object_list(found)
    return found[0]


def record_failure(cell: Cell, store: Store, reason: str) -> None:
    """Leave a failed record of a cell that was given up."""
    store.write_record(_record(cell, cell.spec.key(), status="failed", reason=reason))


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if "DataLoader worker" in str(error):
            raise RunFailed(f"a process that draws batches died, mostly for want of memory: {error}") from error
        # PyTorch's allocator on the CPU raises a plain RuntimeError.
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and (
            type(error) is not RuntimeError or "allocate memory" not in str(error)
        ):
            raise
        advice = "lower --set pretrain.batch, finetune.batch or recipe.roi, or raise pretrain.accumulate"
        raise RunFailed(f"out of memory: {advice} ({str(error).splitlines()[0]})") from error


class Trained(NamedTuple):
    """A fine-tuned model, how its encoder was filled, and the facts of both stages."""

    model: nn.Module
    transfer: Transfer
    pretraining: dict[str, Any]
    finetuning: dict[str, Any]


def _train(cell: Cell, key: str, store: Store, setting: Setting, registry: Registry) -> Trained:
    task_model(cell, store)  # a head that does not fit is refused now, not after days of pre-training
    encoder_facts = pretrain_encoder(cell, store, setting, registry)
    model, transfer = task_model(cell, store)
    folder = store.folder("models", key)
    facts = store.finished("models", key)
    if facts is None:
        if hasattr(model, "remember"):
            facts = fit(model, cell.spec, cell.data.prepared, cell.labelled, setting)
        else:
            job = finetune_job(cell, model, folder, setting)
            facts = _perform(job, registry.manager.hook.mae_bench_finetune(job=job))
        if setting.accelerator.is_main_process:
            save_weights(model, folder / MODEL)
            pretrain.write_losses(facts.pop("losses"), folder / "losses.csv")
            store.finish("models", key, facts)
            loop.clear(folder)
        setting.accelerator.free_memory()
    else:
        model.load_state_dict(from_safetensors((folder / MODEL).read_bytes()))
    return Trained(use_onednn(model).to(setting.accelerator.device), transfer, encoder_facts, facts)


def finetune_job(cell: Cell, model: nn.Module, folder: Path, setting: Setting) -> finetune.Job:
    """The fine-tuning of a model on the labelled cases."""
    data = cell.data
    return finetune.Job(
        cell.spec,
        data.task,
        model,
        data.prepared,
        cell.labelled,
        data.split.val,
        folder,
        setting,
        cell.extra_steps,
        data.split.train,
    )


def _score(cell: Cell, key: str, store: Store, setting: Setting, trained: Trained) -> ResultRecord:
    data, folder = cell.data, store.folder("models", key)
    scores = evaluate(
        trained.model,
        cell.spec,
        data.task,
        cell.chosen.plugin("dataset"),
        data.prepared,
        {case.id: case for case in data.layout.cases},
        data.root,
        data.split.test,
        folder,
        setting,
    )
    where = setting.accelerator.device
    text = scores.cases.to_csv(index=False, lineterminator="\n").encode()
    write_bytes(store.cases_path(key), text)
    spent = trained.pretraining.get("seconds", 0.0)
    cost = Cost(
        wall_s=round(spent + trained.finetuning["seconds"], 3),
        pretrain_s=round(spent, 3),
        samples=trained.pretraining.get("samples", 0),
        peak_memory_mb=round(device.peak_memory_mb(where), 1),
        device=device.device_name(where),
        bytes_up=sum(facts.get("bytes_up", 0) for facts in (trained.pretraining, trained.finetuning)),
        bytes_down=sum(facts.get("bytes_down", 0) for facts in (trained.pretraining, trained.finetuning)),
    )
    return _record(
        cell,
        key,
        status="ok",
        scores=scores,
        cases=CaseFile(file=store.cases_path(key).name, sha256=hashlib.sha256(text).hexdigest()),
        transfer=trained.transfer,
        cost=cost,
        environment=device.environment(setting.accelerator, setting.compile),
        events=(*trained.pretraining.get("events", []), *trained.finetuning["events"]),
    )


@contextlib.contextmanager
def _claim(store: Store, kind: str, key: str, setting: Setting) -> Iterator[None]:
    """Hold a stage for all processes of this launch: the main one takes the lock, the others wait for it."""
    accelerator = setting.accelerator
    lock = store.claim(kind, key) if accelerator.is_main_process else contextlib.nullcontext()
    with lock:
        accelerator.wait_for_everyone()
        yield


def has_encoder(cell: Cell) -> bool:
    """Whether the cell starts from an encoder that is made first: trained, or read from a file."""
    return bool(cell.chosen.plugin("pretrain").trains) or cell.chosen.source() is not None


def pretrain_encoder(cell: Cell, store: Store, setting: Setting, registry: Registry) -> dict[str, Any]:
    """Make the encoder unless the store has it: load what it starts from, pre-train it.

    Returns:
        The facts of the stage; none for scratch.
    """
    if not has_encoder(cell):
        return {}
    if (present := _finished(store, "encoders", cell.spec.pretrain_key(), setting)) is not None:
        return present
    spec, source = cell.spec, cell.chosen.source()
    key = spec.pretrain_key()
    with _claim(store, "encoders", key, setting):
        facts = store.finished("encoders", key)
        if facts is None:
            folder, started = store.folder("encoders", key), {}
            encoder, objective = new_objective(cell)
            if source is not None:
                report = load_encoder(
                    encoder, read_weights(source.path).weights, spec.pretrain.name, waive=source.waive
                )
                started = {"transfer": report.model_dump(mode="json")}
            if objective is not None:
                job = pretrain_job(cell, objective, folder, setting)
                facts = started | _perform(job, registry.manager.hook.mae_bench_pretrain(job=job))
            elif setting.accelerator.is_main_process:
                save_weights(encoder, folder / pretrain.WEIGHTS)
            if setting.accelerator.is_main_process:
                _disclose(cell, folder / pretrain.WEIGHTS, trained=objective is not None)
                store.finish("encoders", key, facts or started)
                loop.clear(folder)
                registry.manager.hook.mae_bench_encoded(key=key, facts=facts or started)
            setting.accelerator.free_memory()
            setting.accelerator.wait_for_everyone()
    return facts or started


def _disclose(cell: Cell, weights: Path, *, trained: bool) -> None:
    """Leave beside an encoder which cases it was made from, unless that is not known of what it started from."""
    start, identities = cell.chosen.source(), _identities(cell.data)
    before = () if start is None else read_manifest(start.path)
    if before is not None:
        own = [identities[case] for case in cell.data.split.train] if trained else []
        write_manifest(weights, (*before, *own))


def new_objective(cell: Cell) -> tuple[nn.Module, nn.Module | None]:
    """A new encoder, and what trains it, if anything does."""
    spec, chosen = cell.spec, cell.chosen
    torch.manual_seed(spec.pretrain_seed)
    channels = len(cell.data.task.channels)
    encoder: nn.Module = chosen.plugin("backbone").build(chosen.options["backbone"], channels, spec.recipe.roi)
    return encoder, chosen.plugin("pretrain").objective(chosen.options["pretrain"], encoder)


def pretrain_job(cell: Cell, objective: nn.Module, folder: Path, setting: Setting) -> pretrain.Job:
    """The pre-training of an objective on the training cases."""
    data = cell.data
    return pretrain.Job(cell.spec, data.task, objective, data.prepared, data.split.train, folder, setting)


def _perform(job: pretrain.Job | finetune.Job, answer: Callable[[], dict[str, Any]] | None) -> dict[str, Any]:
    """What a plugin offered to do, else the stage in this process (or in all of an accelerate launch)."""
    if answer is not None:
        return answer()
    if job.spec.federates(job.stage):
        raise UsageError("training shared by sites needs Flower: pip install 'mae-bench[federated]'")
    return job.finish(loop.train(job.plan(), job.setting))


def task_model(cell: Cell, store: Store) -> tuple[nn.Module, Transfer]:
    """Encoder and head as fine-tuning starts: the head's random weights are the same for every pre-training."""
    spec, chosen, data = cell.spec, cell.chosen, cell.data
    torch.manual_seed(spec.seed)
    encoder = chosen.plugin("backbone").build(
        chosen.options["backbone"], len(data.task.channels), spec.recipe.roi, drop_path=spec.recipe.finetune.drop_path
    )
    model: nn.Module = chosen.plugin("head").build(chosen.options["head"], encoder, data.task)
    facts = store.finished("encoders", spec.pretrain_key())
    if facts is None:
        return model, Transfer(source="none")
    path = store.folder("encoders", spec.pretrain_key()) / pretrain.WEIGHTS
    transfer = load_encoder(encoder, load_weights(path), spec.pretrain.name)
    # What came from elsewhere is reported as it came, not as it was copied out of the store.
    return model, Transfer(**facts["transfer"]) if "transfer" in facts else transfer


def _record(cell: Cell, key: str, *, scores: Scores | None = None, **fields: Any) -> ResultRecord:
    data, start = cell.data, cell.chosen.source()
    record = ResultRecord(
        schema=1,
        key=key,
        spec=cell.spec,
        data=RecordData(
            kind=data.kind,
            fingerprint=data.prepared.fingerprint,
            split=data.split,
            labelled=cell.labelled,
            skipped=data.prepared.problems,
            identities=_identities(data),
            pretrained_on=None if start is None else read_manifest(start.path),
        ),
        plugins={
            listed.plugin.name: Distribution(dist=listed.dist, version=listed.version)
            for listed in cell.chosen.plugins.values()
        },
        **fields,
    )
    if scores is None:
        return record
    return record.model_copy(update={"metrics": scores.metrics, "main_metric": scores.main})


def _identities(data: Data) -> dict[str, Identity]:
    cases, facts = {*data.split.train, *data.split.val, *data.split.test}, data.prepared.facts
    return {case: Identity(subject=facts[case].subject, sha256=facts[case].sha256) for case in sorted(cases)}
