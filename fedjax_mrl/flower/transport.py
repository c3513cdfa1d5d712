"""How messages of the server reach nodes: by Flower's grid, or what stands for it."""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fedjax_mrl.flower import records
from fedjax_mrl.flower.error import Refused
from fedjax_mrl.flower.kinds import TYPES

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

_PAUSE = 0.05  # seconds between questions for answers


class Answer(NamedTuple):
    """What came back from a node: bytes, or an error of what lies between."""

    data: bytes
    error: str = ""


class Transport(Protocol):
    """Carries messages to nodes and their answers back."""

    def nodes(self) -> dict[int, str]:
        """The nodes that are connected, by id, with the names of their registration."""
        ...

    def exchange(
        self, kind: str, round: int, requests: Mapping[int, bytes], timeout: float
    ) -> dict[int, Answer]:
        """Sends messages, and waits for their answers.

        Args:
            kind: of the messages, see `kinds`.
            round: that they are of.
            requests: by node.
            timeout: seconds to wait at most.

        Returns:
            The answers that came, by node, in any order.
        """
        ...


class GridTransport:
    """Carries messages by Flower's grid.

    Args:
        grid: as a ServerApp is given it.
    """

    def __init__(self, grid: "Grid") -> None:
        self._grid = grid

    def nodes(self) -> dict[int, str]:
        """The nodes that are connected, by id, with the names of their registration."""
        return {node.node_id: node.name for node in self._grid.get_nodes()}

    def exchange(
        self, kind: str, round: int, requests: Mapping[int, bytes], timeout: float
    ) -> dict[int, Answer]:
        """Sends messages, and waits for their answers; see `Transport`."""
        from flwr.app import Message

        # Equal bytes are sent once: Flower knows objects by their content.
        wrapped = {data: records.wrap(data) for data in set(requests.values())}
        sent = [
            Message(wrapped[data], node, TYPES[kind], ttl=timeout, group_id=str(round))
            for node, data in requests.items()
        ]
        end = time.monotonic() + timeout
        names = self._grid.push_messages(sent)
        waiting = {name for name in names if name}
        answers: dict[int, Answer] = {}
        while waiting:
            came = list(self._grid.pull_messages(waiting))
            answers |= _answers(came)
            waiting -= {message.metadata.reply_to_message_id for message in came}
            if time.monotonic() > end:
                break
            if waiting:
                time.sleep(_PAUSE)
        return {node: answers[node] for node in answers if node in requests}


def _answers(messages: "Iterable[Message]") -> dict[int, Answer]:
    answers = {}
    for message in messages:
        try:
            if message.has_error():
                answer = Answer(b"", f"Flower: {message.error.reason}")
            else:
                answer = Answer(records.unwrap(message.content))
        except Refused as error:
            answer = Answer(b"", str(error))
        answers[message.metadata.src_node_id] = answer
    return answers
