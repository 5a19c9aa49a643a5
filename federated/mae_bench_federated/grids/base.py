"""What the grids of a simulation share: node i + 2 is site i, and replies come back in the order of the sites."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import count

from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

# Flower has no public way to say for whom this process makes messages; without it Message() raises.
from flwr.supercore.task_identity import TaskIdentity

FIRST = 2  # 1 is Flower's own server
RUN = 1


def be_server() -> None:
    """Let this process make messages in the server's name."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = RUN, RUN, FIRST - 1


class SimulatedGrid(Grid):
    """Sites that are all on this machine. `answer` says how they work through what they are sent."""

    def __init__(self, sites: int, node_config: dict[str, str | int | float | bool]) -> None:
        be_server()
        self.sites, self.node_config = sites, node_config
        self._numbers, self._replies = count(), dict[str, Message]()

    @abstractmethod
    def answer(self, messages: Sequence[Message], timeout: float | None) -> Iterable[Message]:
        """Replies to the messages, in any order; those that come too late are left out."""

    def context(self, site: int) -> Context:
        """What the client app is told about itself."""
        return Context(RUN, site + FIRST, {**self.node_config, "site": site}, RecordDict(), {})

    @staticmethod
    def site_of(message: Message) -> int:
        """The site a message is for."""
        return message.metadata.dst_node_id - FIRST

    def get_node_ids(self) -> Iterable[int]:
        """All sites are there, always."""
        return [site + FIRST for site in range(self.sites)]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Sites with their names."""
        return [NodeInfo(node_id=site + FIRST, name=f"site {site}") for site in range(self.sites)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Let the sites work, and collect their replies in the order of the messages."""
        return self.pull_messages(self._push(list(messages), timeout))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let the sites work; it is done when this returns."""
        return self._push(list(messages), None)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there."""
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def _push(self, messages: Sequence[Message], timeout: float | None) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message {next(self._numbers)}"
        for reply in self.answer(messages, timeout):
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in messages]

    def close(self) -> None:
        """Let go of whatever works for the sites."""

    # Of Flower's interface, not of use here.

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message, as Flower's own grids still can."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def set_run(self, run: Run) -> None:
        """There is one run."""

    @property
    def run(self) -> Run:
        """There is one run, and nothing is known of it."""
        return Run.create_empty(RUN)
