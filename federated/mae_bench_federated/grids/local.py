"""Sites in this process, one after the other: one module in memory, no sockets, the same bits every time."""

import time
from collections.abc import Iterable, Sequence

from flwr.app import Message

from mae_bench_federated import client_app
from mae_bench_federated.grids.base import SimulatedGrid
from mae_bench_federated.site import Workplace


class LocalGrid(SimulatedGrid):
    """Runs the client app on each message in turn. An error that is not a site's own is nobody's reply: it ends all."""

    def __init__(self, place: Workplace) -> None:
        name = f"local {id(self)}"
        super().__init__(len(place.cases), {"workplace": name, "wire": False})
        client_app.work_at(name, place)
        self.name = name

    def answer(self, messages: Sequence[Message], timeout: float | None) -> Iterable[Message]:
        """Replies in turn. Sites that work at once have the deadline in common, so here each has all of it."""
        for message in messages:
            began = time.monotonic()
            reply = client_app.app(message, self.context(self.site_of(message)))
            if timeout is None or time.monotonic() - began <= timeout:
                yield reply

    def close(self) -> None:
        """Forget the workplace."""
        client_app.leave(self.name)
