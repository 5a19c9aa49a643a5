"""Timing beside peers: before each measured round, every peer runs once too, so that all see the same machine."""

import statistics
import time
from collections.abc import Callable, Mapping

ROUNDS = 7


def compare(
    benchmark, ours: Callable[[], object], peers: Mapping[str, Callable[[], object]], rounds: int = ROUNDS
) -> dict:
    """Benchmark `ours`, print how many times as long each peer takes (median of the rounds' ratios)."""
    times: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        times[name].append(time.perf_counter() - began)

    def run_peers() -> None:
        for name, work in peers.items():
            timed(name, work)

    for work in (ours, *peers.values()):  # warm-up
        work()
    benchmark.pedantic(lambda: timed("ours", ours), setup=run_peers, rounds=rounds, iterations=1)
    ratios = {}
    for name in peers:
        each = [peer / own for peer, own in zip(times[name], times["ours"], strict=True)]
        ratios[name] = statistics.median(each)
        spread = f"rounds {min(each):.2f} to {max(each):.2f}"
        print(f"\n{benchmark.name}: {name} takes {ratios[name]:.2f} times as long ({spread})", end="")
    benchmark.extra_info["ratios"] = ratios
    return ratios
