"""How the server combines what the sites learnt: Flower's strategies, with the federation's settings.

Running statistics of batch norms are no place for a server's optimiser: a variance that follows a momentum can become
negative. Beside the strategies that have one, they are averaged.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian, FedProx, FedTrimmedAvg, FedYogi, Krum

from mae_bench.spec import Federation
from mae_bench_federated import weights
from mae_bench_federated.messages import ARRAYS, CASES, METRICS, Report
from mae_bench_federated.weights import Arrays, Values

OPTIMISE = ("fedadam", "fedyogi", "fedavgm")  # strategies with an optimiser of their own
STATE = ("m_t", "v_t", "momentum_vector")  # what Flower's strategies keep from round to round


class _Nodes(NamedTuple):
    """As much of a grid as a strategy looks at: who takes part was decided before."""

    ids: Sequence[int]

    def get_node_ids(self) -> Sequence[int]:
        return self.ids


class Combination:
    """A strategy of Flower's between two meetings. `state` is what it must not forget."""

    def __init__(self, federation: Federation, statistics: Sequence[str]) -> None:
        self.strategy = make(federation)
        self.averaged = frozenset(statistics if federation.strategy in OPTIMISE else ())

    def configure(self, number: int, arrays: Arrays, nodes: Sequence[int]) -> list[tuple[int, ConfigRecord]]:
        """What is asked of each node beside the steps."""
        if isinstance(self.strategy, FedAvgM):
            self.strategy.current_arrays = None  # it would go on from its own result, not from what became of it
        learned = {name: value for name, value in arrays.items() if name not in self.averaged}
        record = weights.pack(learned, wire=False)
        asked = self.strategy.configure_train(number, record, ConfigRecord(), cast(Grid, _Nodes(nodes)))
        return [(message.metadata.dst_node_id, message.content.config_records["config"]) for message in asked]

    def combine(self, number: int, reports: Sequence[Report], like: Arrays) -> dict[str, Values]:
        """The new common weights, in the precision of `like`."""
        learned = [_without(report, self.averaged) for report in reports]
        if isinstance(self.strategy, Krum):
            # Flower's Krum takes distances by squares and products: of whole weights nothing of them would be left.
            learned = [_less(report, like) for report in learned]
        record, _ = self.strategy.aggregate_train(number, [_reply(report) for report in learned])
        assert record is not None
        result = weights.unpack(record)
        if isinstance(self.strategy, Krum):
            result = {name: like[name] + value for name, value in result.items()}
        if self.averaged:
            rest = frozenset(like) - self.averaged
            plain, _ = FedAvg(train_metrics_aggr_fn=_no_metrics).aggregate_train(
                number, [_reply(_without(report, rest)) for report in reports]
            )
            assert plain is not None
            result |= weights.unpack(plain)
        # Some strategies answer in double precision.
        return {name: np.asarray(result[name], value.dtype) for name, value in like.items()}

    @property
    def state(self) -> dict[str, Any]:
        """Tensors, in dictionaries and lists, for a checkpoint."""
        found = {name: getattr(self.strategy, name, None) for name in STATE}
        return {name: _map(value, _tensor) for name, value in found.items() if value is not None}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self.strategy, name, _map(value, lambda tensor: tensor.numpy()))


class _Mean(FedAvg):
    """Flower's weighted mean, by torch and in place: its own serialises the result, which here nobody reads."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Weights by number of cases (McMahan et al. 2017, algorithm 1)."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        contents = [message.content for message in valid]
        cases = [cast(int, content.metric_records[METRICS][CASES]) for content in contents]
        arrays = [weights.tensors(weights.unpack(content.array_records[ARRAYS])) for content in contents]
        names, shares = list(arrays[0]), [each / sum(cases) for each in cases]
        # In the memory of the first, which nobody needs any more. As it is, if it is all.
        total = [arrays[0][name] for name in names]
        torch._foreach_mul_(total, shares[0])
        for own, share in zip(arrays[1:], shares[1:], strict=True):
            torch._foreach_add_(total, [own[name] for name in names], alpha=share)
        mean = {name: value.numpy() for name, value in zip(names, total, strict=True)}
        return weights.pack(mean, wire=False), MetricRecord()


class _ProximalMean(FedProx, _Mean):
    """FedProx differs at the sites alone."""


def make(federation: Federation) -> FedAvg:
    """The strategy that a federation names. Who takes part, and when there are too few, is decided elsewhere."""
    common: dict[str, Any] = {
        "min_train_nodes": 1,
        "min_available_nodes": 1,
        "train_metrics_aggr_fn": _no_metrics,
    }
    lr, momentum = federation.server_lr, federation.momentum
    match federation.strategy:
        case "fedprox":
            return _ProximalMean(**common, proximal_mu=federation.mu)
        case "fedadam":
            return FedAdam(**common, eta=lr, beta_1=momentum)
        case "fedyogi":
            return FedYogi(**common, eta=lr, beta_1=momentum)
        case "fedavgm":
            return FedAvgM(**common, server_learning_rate=lr, server_momentum=momentum)
        case "fedmedian":
            return FedMedian(**common)
        case "krum":
            return Krum(**common, num_malicious_nodes=federation.malicious)
        case "trimmed-mean":
            return FedTrimmedAvg(**common, beta=federation.trim)
        case _:
            return _Mean(**common)


def _no_metrics(records: list[RecordDict], key: str) -> MetricRecord:
    """Losses are put together elsewhere, and cannot be averaged where sites answer different numbers of them."""
    return MetricRecord()


def _without(report: Report, names: frozenset[str]) -> Report:
    return report._replace(arrays={name: value for name, value in report.arrays.items() if name not in names})


def _less(report: Report, start: Arrays) -> Report:
    return report._replace(arrays={name: value - start[name] for name, value in report.arrays.items()})


def _reply(report: Report) -> Message:
    """A report as a strategy takes it."""
    arrays: ArrayRecord = weights.pack(report.arrays, wire=False)
    content = RecordDict({ARRAYS: arrays, METRICS: MetricRecord({CASES: report.cases})})
    return Message(content, dst_node_id=1, message_type=MessageType.TRAIN)


def _tensor(value: Any) -> torch.Tensor:
    """Of an array, or of a number, into which numpy turns an array without axes."""
    return torch.from_numpy(np.asarray(value))


def _map(value: Any, change: Any) -> Any:
    """Apply to every leaf of dictionaries and lists."""
    if isinstance(value, dict):
        return {name: _map(each, change) for name, each in value.items()}
    if isinstance(value, list):
        return [_map(each, change) for each in value]
    return change(value)
