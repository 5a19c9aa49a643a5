"""One round of a ViT-B between a server and two sites of a simulation, beside saving and loading the same weights once.

`nox -s speed -- -k federation` prints the ratio. The sites do not train: what is timed is packing, messages, checks,
loading into the module, and the strategy. To stay below: 1.5 times. On one thread: what is timed waits for memory, and
on a busy machine threads would wait for each other.
"""

import os

import pytest
import torch
from torch import nn

from benchmarks.speed.interleaved import compare
from mae_bench.engine.device import keep_freed_memory
from mae_bench.spec import Federation
from mae_bench_plugins.backbones.vit import ViT, ViTOptions

SITES = 2


class Idle(nn.Module):
    """A ViT-B of BraTS's size, around which nothing is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ViT().build(ViTOptions(size="base"), 4, (96, 96, 96))


def test_round(benchmark, tmp_path):
    pytest.importorskip("flwr")
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from mae_bench.engine.progress import Silent
    from mae_bench_federated import weights
    from mae_bench_federated.grids.base import SimulatedGrid
    from mae_bench_federated.messages import Report, read_order, write_report
    from mae_bench_federated.rounds import Course, Server

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    module = Idle()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """All that a site does but its steps."""
        _, arrays = read_order(message)
        weights.give(module, arrays)
        return write_report(Report(weights.take(module), 1, [1.0]), message, wire=False)

    class Grid(SimulatedGrid):
        def answer(self, messages, timeout):
            return [app(message, self.context(self.site_of(message))) for message in messages]

    names = [f"site {site}" for site in range(SITES)]
    federation = Federation(sites=SITES, rounds=1000)
    course = Course("pretrain", module, federation, 1000, 1, tmp_path, Silent(), names)
    server = Server(course, Grid(SITES, {}))
    numbers = iter(range(1, 1000))

    def one_round() -> None:
        server.combine(number := next(numbers), server.ask(number, number - 1, number))

    state = {name: value for name, value in module.state_dict().items() if name in set(weights.federated_names(module))}

    def save_and_load() -> None:
        torch.save(state, tmp_path / "weights.pt")
        torch.load(tmp_path / "weights.pt", weights_only=True)
        os.remove(tmp_path / "weights.pt")

    ratios = compare(benchmark, one_round, {"torch.save and torch.load": save_and_load})
    torch.set_num_threads(threads)
    taken = 1 / ratios["torch.save and torch.load"]
    print(f"\na round takes {taken:.2f} times as long as one torch.save and torch.load", end="")
