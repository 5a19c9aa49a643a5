"""What a site does with a message. The same app in a simulation, in worker processes and between hospitals."""

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from mae_bench.errors import Interrupted, RunFailed
from mae_bench_federated.hospital import workplace
from mae_bench_federated.messages import Malformed, read_order, write_report
from mae_bench_federated.site import Workplace

REFUSED, DIVERGED, FAILED = 101, 102, 103  # beside Flower's own codes, which are below 100

app = ClientApp()

# Where the sites of this process work. A simulation sets it; a hospital's process finds its own.
_workplaces: dict[str, Callable[[Context], Workplace]] = {}


def work_at(name: str, workplace: Workplace) -> None:
    """Let the sites whose configuration says `workplace = name` train there."""
    _workplaces[name] = lambda context: workplace


def leave(name: str) -> None:
    """Forget a workplace."""
    _workplaces.pop(name, None)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one round. What goes wrong is told by its kind: no text of a site's own travels."""
    wire = bool(context.node_config.get("wire", True))
    simulated = str(context.node_config.get("workplace", ""))
    try:
        place = _workplaces[simulated](context) if simulated else workplace(context)
        order, arrays = read_order(message)
        report = place.train(int(context.node_config["site"]), order, arrays)
        return write_report(report, message, wire=wire)
    except Malformed as error:
        return Message(Error(REFUSED, f"refused: {error}"), reply_to=message)
    except Interrupted:
        raise
    except RunFailed:
        return Message(Error(DIVERGED, "its losses were not finite"), reply_to=message)
    except Exception as error:
        if not wire:
            raise  # in the server's own process it is a fault of the program, and ends it
        logging.getLogger(__name__).exception("the round failed")
        return Message(Error(FAILED, type(error).__name__), reply_to=message)
