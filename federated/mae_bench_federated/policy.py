"""Whose answer counts in a round: the late, dead, diverged, malformed and outlying are left out, by name.

They are asked again in the next round.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from flwr.app import Message
from flwr.common.constant import ErrorCode

from mae_bench.errors import UsageError
from mae_bench.spec import Federation
from mae_bench_federated.messages import Malformed, Report, check_arrays, read_report
from mae_bench_federated.weights import Arrays, tensors

PIECE = 1 << 20  # numbers; four megabytes, which stay in the cache

Dropped = dict[str, str]  # site and reason


def check(federation: Federation) -> None:
    """Refuse a robust strategy that would not be one.

    Raises:
        UsageError: so few sites answer that nothing is trimmed, or that Krum cannot tell who lies.
    """
    asked = max(1, round(federation.participation * federation.sites))
    if federation.strategy == "trimmed-mean" and not int(federation.trim * asked):
        raise UsageError(
            f"--strategy trimmed-mean cuts nothing off {asked} answers at --trim {federation.trim:g}: "
            f"--trim must be at least {1 / asked:.2g}, with three sites or more"
        )
    if federation.strategy == "krum" and asked < 2 * federation.malicious + 3:
        raise UsageError(
            f"--strategy krum with --malicious {federation.malicious} needs {2 * federation.malicious + 3} sites that "
            f"are asked in a round; there are {asked} (Blanchard et al. 2017)"
        )


class Answers(NamedTuple):
    """Reports that count, by site, in the order of the sites, and the norms of their updates; sites that are left out,
    with the reason.
    """

    reports: dict[str, Report]
    dropped: Dropped
    norms: list[float]


def judge(
    asked: Mapping[str, str],
    replies: Sequence[Message],
    steps: int,
    now: Arrays,
    outlier: float | None,
    rebuild: Callable[[Report], Report],
    *,
    half: bool = False,
    earlier: Sequence[float] = (),
) -> Answers:
    """Sort out the answers to a round.

    Args:
        asked: site of each message, in the order of the sites.
        replies: what came back in time.
        steps: losses each must tell.
        now: the weights that were sent, in full precision.
        outlier: an update this many times the (lower) median norm is left out; None: no such rule.
        rebuild: makes full weights of what a report holds.
        half: weights travel in half precision.
        earlier: norms of the updates of earlier rounds: of two answers alone nobody could say which is the odd one.
    """
    by_message = {reply.metadata.reply_to_message_id: reply for reply in replies}
    reports: dict[str, Report] = {}
    dropped: Dropped = {}
    norms: dict[str, float] = {}
    for message, site in asked.items():
        reply = by_message.get(message)
        if reply is None:
            dropped[site] = "no answer before the deadline"
            continue
        if reply.has_error():
            dropped[site] = _explain(reply)
            continue
        try:
            report = read_report(reply, steps)
            report = report._replace(arrays=check_arrays(report.arrays, now, half=half))
        except Malformed as error:
            dropped[site] = f"malformed: {error}"
            continue
        report = rebuild(report)
        norms[site] = distance(report.arrays, now)
        if torch.isfinite(torch.tensor(norms[site])):
            reports[site] = report
        else:
            dropped[site] = "diverged: its weights are not finite"
    if reports and outlier is not None:
        usual = statistics.median_low([*earlier, *(norms[site] for site in reports)])
        for site in list(reports):
            if norms[site] > outlier * usual > 0:
                dropped[site] = f"outlier: its update is {norms[site] / usual:.3g} times as long as the median"
                del reports[site]
    return Answers(reports, dropped, [norms[site] for site in reports])


def distance(new: Arrays, old: Arrays) -> float:
    """Euclidean length of an update; not finite if any of it is not."""
    before, after = tensors(old), tensors(new)
    room, squares = torch.empty(PIECE), []
    for name, start in before.items():
        # Piece by piece, in one room: a difference as large as the weights would be written to memory and read again.
        for a, b in zip(*(torch.split(each.reshape(-1), PIECE) for each in (after[name], start)), strict=True):
            piece = torch.sub(a, b, out=room[: len(a)])
            squares.append(torch.dot(piece, piece))
    return float(torch.stack(squares).double().sum().sqrt())


def _explain(reply: Message) -> str:
    if reply.error.code == ErrorCode.NODE_UNAVAILABLE:
        return "dead: its node went away"
    if reply.error.code == ErrorCode.CLIENT_APP_CRASHED:
        return "crashed: its process ended"
    # A site's own words are cut: they come from elsewhere and go into a record.
    return f"failed: {(reply.error.reason or 'without a reason')[:200]}"
