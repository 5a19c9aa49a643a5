"""What a worker is handed, and doing it: in this process, or in any that sees the store and the data."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mae_bench import hookimpl
from mae_bench.data.source import Data, open_data
from mae_bench.engine.device import make_accelerator
from mae_bench.engine.loop import Setting
from mae_bench.engine.progress import Reporter, Silent
from mae_bench.errors import Interrupted, MaeBenchError
from mae_bench.grid.file import Order
from mae_bench.record import ResultRecord
from mae_bench.registry import registry
from mae_bench.resolve import Chosen, resolve
from mae_bench.run import Cell, make_cell, pretrain_encoder, record_failure, run
from mae_bench.store import Store
from mae_bench.values import Value, digest


class Work(Value):
    """One stage of one cell. data: folder of the data set, if it is not a stand-in."""

    stage: Literal["pretrain", "cell"]
    order: Order
    store: Path
    data: Path | None = None
    checkpoint_minutes: float = 5.0


class Outcome(Value):
    """What came of it. found: it was there already. lost: the worker died; the work may be tried elsewhere."""

    status: Literal["done", "found", "failed", "lost"]
    reason: str = ""
    seconds: float = 0.0


class Opener:
    """Opens data sets once per process, however many cells are on them."""

    def __init__(self, store: Store, data: Mapping[str, Path]) -> None:
        self.store, self.data = store, data
        self.opened: dict[str, Data] = {}

    def open(self, order: Order, chosen: Chosen) -> Cell:
        """The cell on its data; whatever its data set raises comes through."""
        where = [order.dataset, chosen.recorded("dataset"), order.demo, order.protocol]
        key = digest(where)
        if key not in self.opened:
            self.opened[key] = open_data(
                chosen.plugin("dataset"),
                chosen.options["dataset"],
                self.store,
                data=None if order.demo else self.data.get(order.dataset),
                demo=order.demo,
                protocol=order.protocol,
            )
        return make_cell(
            chosen, self.opened[key], labels=order.labels, seed=order.seed, pretrain_seed=order.pretrain_seed
        )


class Worker:
    """Does one piece of work after the other, keeping open what they share."""

    def __init__(self, reporter: Reporter | None = None) -> None:
        self.registry = registry()
        self.reporter = reporter or Silent()
        self.accelerator = make_accelerator()
        self.openers: dict[tuple[Path, str, Path | None], Opener] = {}

    def perform(self, work: Work) -> Outcome:
        """Do the stage, unless the store has it.

        Raises:
            Interrupted: a signal came; the work continues when it is performed again.
        """
        began, cell = time.monotonic(), None
        heard = _Computed()
        self.registry.manager.register(heard)
        try:
            cell, store = self._cell(work)
            setting = Setting(self.accelerator, self.reporter, work.checkpoint_minutes)
            if work.stage == "pretrain":
                pretrain_encoder(cell, store, setting, self.registry)
            else:
                run(cell, store, setting, self.registry)
        except Interrupted:
            raise
        except MaeBenchError as error:
            return Outcome(status="failed", reason=str(error), seconds=time.monotonic() - began)
        except Exception as error:
            # A fault of one plugin, or of ours, is a row: the other cells go on.
            logging.getLogger(__name__).exception("%s", work.order.label())
            reason = f"{type(error).__name__}: {error}"
            if work.stage == "cell" and cell is not None:
                record_failure(cell, Store(work.store), reason)
            return Outcome(status="failed", reason=reason, seconds=time.monotonic() - began)
        finally:
            self.registry.manager.unregister(heard)
        status: Literal["done", "found"] = "done" if heard.computed else "found"
        return Outcome(status=status, seconds=time.monotonic() - began)

    def give_up(self, work: Work, reason: str) -> None:
        """Leave a failed record of a cell whose encoder could not be made."""
        cell, store = self._cell(work)
        record_failure(cell, store, reason)

    def _cell(self, work: Work) -> tuple[Cell, Store]:
        place = (work.store, work.order.dataset, work.data)
        if place not in self.openers:
            data = {} if work.data is None else {work.order.dataset: work.data}
            self.openers[place] = Opener(Store(work.store), data)
        opener = self.openers[place]
        return opener.open(work.order, resolve(work.order.request(), self.registry)), opener.store


class _Computed:
    """Hears whether a stage was computed or found."""

    computed = False

    @hookimpl
    def mae_bench_recorded(self, record: ResultRecord) -> None:
        """A record was written."""
        self.computed = True

    @hookimpl
    def mae_bench_encoded(self, key: str, facts: dict[str, Any]) -> None:
        """An encoder was made."""
        self.computed = True
