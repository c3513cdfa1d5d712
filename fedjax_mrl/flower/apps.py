"""The two halves of a Flower app: `flower new` writes a folder that names them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedjax_mrl.flower import records, sockets
from fedjax_mrl.flower.error import FlowerError
from fedjax_mrl.flower.kinds import TYPES

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp


def client_app(ask: "Callable[[bytes, Context], bytes] | None" = None) -> "ClientApp":
    """A ClientApp that hands every message to the worker of its node.

    Flower begins a process for every message; what takes long to begin, JAX and the
    compiled programs, is in the worker, which lasts.

    Args:
        ask: message, context -> answer; by default by the socket that the node's
            configuration names.
    """
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    ask = ask or _ask_worker
    app = ClientApp()

    def handle(message: "Message", context: "Context") -> "Message":
        answer = ask(records.unwrap(message.content), context)
        return Message(records.wrap(answer), reply_to=message)

    for name in TYPES.values():
        category, _, action = name.partition(".")
        register: Any = getattr(app, category)
        (register(action) if action else register())(handle)
    return app


def _ask_worker(data: bytes, context: "Context") -> bytes:
    path = context.node_config.get("socket")
    if not isinstance(path, str):
        raise FlowerError(
            "The node does not say where its worker is: start flower-supernode with "
            "--node-config 'socket=\"FILE\"', as `fedjax-mrl flower worker` prints it."
        )
    return sockets.ask(path, data)


def server_app() -> "ServerApp":
    """A ServerApp that plays the federation of the app's configuration."""
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: "Grid", context: "Context") -> None:
        from fedjax_mrl.flower import serving

        serving.serve(grid, context.run_config)

    return app
