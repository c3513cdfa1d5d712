"""A network in one process: Flower's grid, with its messages as bytes in between."""

import types

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedjax_mrl.flower import apps, identity, node, progress, server
from fedjax_mrl.flower.settings import Patience
from fedjax_mrl.flower.transport import GridTransport


def through_bytes(value):
    """The value as it is after its way over the network."""
    children = {
        name: through_bytes(child) for name, child in (value.children or {}).items()
    }
    return type(value).inflate(value.deflate(), children)


class Memory:
    """Stands for Flower's grid and its nodes; each node runs the real ClientApp.

    Attributes:
        nodes: by id, what answers bytes with bytes, in no order of the clients.
        names: of nodes that were registered with one.
        lost: nodes whose answers do not come.
        sent: all messages, as (node, direction, bytes of Flower's objects, message).
    """

    def __init__(self, answers):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 0
        self.nodes = {1000 - 7 * k: answer for k, answer in answers.items()}
        self.names, self.lost, self.sent = {}, set(), []
        self._waiting = {}

    def get_nodes(self):
        return [
            types.SimpleNamespace(node_id=node, name=self.names.get(node, ""))
            for node in self.nodes
        ]

    def push_messages(self, messages):
        names = []
        for message in messages:
            names.append(f"message {len(self.sent)}")
            node = message.metadata.dst_node_id
            self.sent.append((node, "down", message))
            there = through_bytes(message)
            there.metadata.__dict__["_message_id"] = names[-1]
            if node not in self.lost:
                self._waiting[names[-1]] = self._run(node, there)
        return names

    def _run(self, node, message):
        app = apps.client_app(lambda data, context: self.nodes[node](data))
        context = Context(7, node, {}, RecordDict(), {})
        answer = app(message, context)
        self.sent.append((node, "up", answer))
        return through_bytes(answer)

    def pull_messages(self, names):
        """Those that came, the last one first."""
        return [
            self._waiting.pop(name)
            for name in sorted(names, reverse=True)
            if name in self._waiting
        ]


class Deployment:
    """A server and its nodes, each with its folder below one."""

    def __init__(self, federation, folder, **patience):
        self.federation, self.folder = federation, folder
        self.told = []
        self.patience = Patience(**{"timeout": 0.2, "attempts": 1, **patience})
        self.workers = {k: self.worker(k) for k in range(len(federation.train))}
        self.grid = Memory({k: one.answer for k, one in self.workers.items()})

    def worker(self, client):
        """A worker that has just been started."""
        return node.Node(self.federation, client, self.folder / f"node-{client}")

    def node_of(self, client):
        return 1000 - 7 * client

    def loop(self):
        """A server that has just been started."""
        options = identity.options(self.federation.config)
        self.server = progress.Folder(self.folder / "server", options)
        return server.Loop(
            self.federation,
            self.server,
            GridTransport(self.grid),
            self.patience,
            self.told.append,
        )

    def states(self, now):
        """The states of all clients that counted, by number."""
        return {
            k: one.state(self.server.run, now.base(k))
            for k, one in self.workers.items()
        }


__all__ = ["Deployment", "Memory", "Message", "Patience", "through_bytes"]
