"""Which node has which client."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedjax_mrl.flower import messages
from fedjax_mrl.flower.error import Refused
from fedjax_mrl.flower.kinds import HELLO
from fedjax_mrl.flower.transport import Transport

_HELLO = 60.0  # seconds that a node has to say who it is
_AGAIN = 10.0  # seconds until one that did not is asked again
_NAMED = "client-"  # a node that is registered as client-3 has client 3 and no other


class Roster:
    """The clients that are connected, by asking every new node once.

    Args:
        transport: to the nodes.
        options: of the federation, which nodes must have too.
        architectures: the name of every client's architecture.
        tell: is told in a sentence what is wrong with a node.
    """

    def __init__(
        self,
        transport: Transport,
        options: Mapping[str, Any],
        architectures: Sequence[str],
        tell: Callable[[str], object],
    ) -> None:
        self._transport, self._tell = transport, tell
        self._question = messages.hello(options)
        self._architectures = architectures
        self._clients: dict[int, int] = {}  # of nodes that answered
        self._told: set[tuple[int, str]] = set()
        self._later: dict[int, float] = {}  # when nodes that did not may be asked

    def present(self, timeout: float) -> dict[int, int]:
        """The nodes of the clients that are connected now: client to node.

        Args:
            timeout: seconds to wait for answers of new nodes.
        """
        nodes = self._transport.nodes()
        self._clients = {n: c for n, c in self._clients.items() if n in nodes}
        now = time.monotonic()
        new = {
            node: self._question
            for node in nodes
            if node not in self._clients and self._later.get(node, 0) <= now
        }
        if new:
            timeout = min(timeout, _HELLO)
            answers = self._transport.exchange(HELLO, 0, new, timeout)
            for node in sorted(new):
                try:
                    self._clients[node] = self._introduced(node, nodes[node], answers)
                except Refused as error:
                    self._later[node] = time.monotonic() + _AGAIN
                    self._once(node, str(error))
        return {client: node for node, client in self._clients.items()}

    def _introduced(self, node: int, name: str, answers: Mapping[int, Any]) -> int:
        """The client of a node.

        Raises:
            Refused: if it has none that it may have.
        """
        if node not in answers:
            raise Refused("it does not say which client it has.")
        answer = answers[node]
        if answer.error:
            raise Refused(answer.error)
        found = messages.read_introduction(answer.data)
        client = found.client
        if not 0 <= client < len(self._architectures):
            raise Refused(f"it has client {client}, which takes no part.")
        if name.startswith(_NAMED) and name != f"{_NAMED}{client}":
            raise Refused(f"it has client {client}, but is registered as {name}.")
        if client in self._clients.values():
            raise Refused(f"client {client} is connected already, by another node.")
        wanted = self._architectures[client]
        if found.architecture != wanted:
            raise Refused(
                f"client {client} has the model {found.architecture}, not {wanted}."
            )
        return client

    def _once(self, node: int, reason: str) -> None:
        """Tells of a node's fault, the first time."""
        if (node, reason) not in self._told:
            self._told.add((node, reason))
            self._tell(f"Node {node} is refused: {reason}")
