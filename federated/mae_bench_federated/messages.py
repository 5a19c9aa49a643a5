"""What a message may hold. Both sides check what they get: it comes from another house.

To a site: the weights, and which steps to train. From a site: the weights after them, how many cases it has, and its
losses. Nothing else has a place.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from mae_bench.values import Value
from mae_bench_federated import weights
from mae_bench_federated.weights import Arrays, Values

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
CASES, LOSSES = "num-examples", "losses"


class Malformed(ValueError):
    """A message that is not as it must be; says what is wrong, never what is in it."""


class Order(Value):
    """What the server asks for: the steps from `start` (counted from 0) to before `stop`, in round `number`."""

    stage: str
    number: int
    start: int
    stop: int
    mu: float = 0.0


class Report(NamedTuple):
    """What a site answers. arrays: its weights, or in half precision how they changed. losses: one per step."""

    arrays: Arrays
    cases: int
    losses: Sequence[float]


def read_order(message: Message) -> tuple[Order, dict[str, Values]]:
    """Order and weights.

    Raises:
        Malformed: a record or a field is missing, superfluous or of the wrong type.
    """
    content = message.content
    if set(content) != {ARRAYS, CONFIG}:
        raise Malformed("expected the records arrays and config, and no other")
    arrays, config = content[ARRAYS], content[CONFIG]
    if not isinstance(arrays, ArrayRecord) or not isinstance(config, ConfigRecord):
        raise Malformed("arrays or config is another kind of record")
    # Flower's strategies use names of their own for these two.
    names = {"server-round": "number", "proximal-mu": "mu"}
    try:
        order = Order(**{names.get(name, name): value for name, value in config.items()})
    except ValueError as error:
        raise Malformed("config has a field that is missing, unknown or of the wrong type") from error
    return order, read_arrays(arrays)


def read_arrays(record: ArrayRecord) -> dict[str, Values]:
    """Arrays by name, as they say they are.

    Raises:
        Malformed: one cannot be read, or is not of floating point.
    """
    try:
        arrays = weights.unpack(record)
    except Exception as error:
        # Bytes from elsewhere: whatever numpy makes of them, the site is what is at fault.
        raise Malformed("an array cannot be read") from error
    if any(value.dtype.kind != "f" for value in arrays.values()):
        raise Malformed("an array is not of floating point")
    return arrays


def check_arrays(arrays: Arrays, like: Mapping[str, Any], *, half: bool) -> dict[str, Values]:
    """The arrays in the order of `like`, after a look at their names, shapes and types. half: they travel so.

    Raises:
        Malformed: they are those of another model, or not in the precision that was agreed on.
    """
    if set(arrays) != set(like):
        missing, more = sorted(set(like) - set(arrays)), sorted(set(arrays) - set(like))
        raise Malformed(f"{len(missing)} weights are missing and {len(more)} unknown: another model")
    for name, value in arrays.items():
        if tuple(value.shape) != tuple(like[name].shape):
            raise Malformed(f"{name} has another shape: another model")
        wanted = "float16" if half else str(like[name].dtype).removeprefix("torch.")
        if value.dtype != np.dtype(wanted):
            raise Malformed(f"{name} is {value.dtype}, not {wanted}")
    return {name: arrays[name] for name in like}


def write_report(report: Report, order: Message, *, wire: bool) -> Message:
    """The answer to an order."""
    metrics = MetricRecord({CASES: report.cases, LOSSES: [float(loss) for loss in report.losses]})
    content = RecordDict({ARRAYS: weights.pack(report.arrays, wire=wire), METRICS: metrics})
    return Message(content, reply_to=order)


def read_report(message: Message, steps: int) -> Report:
    """What a site answered to an order of `steps` steps.

    Raises:
        Malformed: a record or a number is missing, superfluous, or cannot be true.
    """
    content = message.content
    if set(content) != {ARRAYS, METRICS}:
        raise Malformed("expected the records arrays and metrics, and no other")
    arrays, metrics = content[ARRAYS], content[METRICS]
    if not isinstance(arrays, ArrayRecord) or not isinstance(metrics, MetricRecord):
        raise Malformed("arrays or metrics is another kind of record")
    if set(metrics) != {CASES, LOSSES}:
        raise Malformed(f"expected the metrics {CASES} and {LOSSES}, and no other")
    cases, losses = metrics[CASES], metrics[LOSSES]
    if not isinstance(cases, int) or not 0 < cases < 2**31:
        raise Malformed(f"{CASES} is no number of cases")
    if not isinstance(losses, list) or len(losses) != steps:
        raise Malformed(f"{LOSSES} are not one per step")
    if not all(math.isfinite(loss) for loss in losses):
        raise Malformed("a loss is not finite")
    return Report(read_arrays(arrays), cases, losses)
