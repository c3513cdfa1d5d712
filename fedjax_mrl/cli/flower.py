"""`fedjax-mrl flower`: the same federation over a real network; docs/deployment.md."""

import argparse
import importlib.util
import logging
import pathlib
import sys
from typing import TYPE_CHECKING

from fedjax_mrl import config as configs
from fedjax_mrl import missing, paths
from fedjax_mrl.cli import options
from fedjax_mrl.cli.command import Command, UsageError
from fedjax_mrl.cli.export import client_number

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig

__all__ = ["flower"]

_ACTIONS = {
    "new": (),
    "keys": ("host", "clients"),
    "worker": ("client", "state", "socket"),
    "evaluate": ("client", "state"),
    "try": ("out",),
}


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        metavar="ACTION",
        choices=list(_ACTIONS),
        help="new: write a Flower app; keys: make its keys; worker: hold one client's "
        "data, programs and state on its node; evaluate: test what a node's client "
        "became; try: all of it on this machine",
    )
    parser.add_argument(
        "folder", metavar="APP", help="path of the app; of `keys` that of the keys"
    )
    keys = parser.add_argument_group("keys")
    keys.add_argument(
        "--host",
        metavar="NAMES",
        help="names and addresses by which nodes reach the server, with commas",
    )
    keys.add_argument("--clients", metavar="N", help="number of nodes")
    worker = parser.add_argument_group("worker")
    worker.add_argument("--client", metavar="K", help="number of this node's client")
    worker.add_argument(
        "--state", metavar="DIR", help="folder of this client's private state"
    )
    worker.add_argument(
        "--socket",
        metavar="FILE",
        help="where Flower's process reaches the worker (STATE/run/socket)",
    )
    trial = parser.add_argument_group("try")
    trial.add_argument(
        "--out", metavar="DIR", help="folder for keys, states and logs, a new one"
    )
    options.add(parser)
    options.add_programs(parser)


def _execute(args: argparse.Namespace) -> int:
    _refuse_others(args)
    try:  # not by its metavar: words before it decide what it is
        args.folder = paths.local(args.folder, "APP", paths.RESERVED)
    except paths.PathError as error:
        raise UsageError(str(error)) from None
    actions = {
        "new": _new,
        "keys": _keys,
        "worker": _worker,
        "evaluate": _evaluate,
        "try": _try,
    }
    return actions[args.action](args)


def _refuse_others(args: argparse.Namespace) -> None:
    """Refuses flags of another action.

    Raises:
        UsageError: for the first one.
    """
    own = _ACTIONS[args.action]
    named = {name for names in _ACTIONS.values() for name in names}
    if args.action != "new":
        named |= {*configs.fields(), "preset", "config"}
        if args.action in ("worker", "evaluate"):
            own = (*own, "data_dir")
    for name in sorted(named - set(own)):
        if getattr(args, name) not in (None, []):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is no flag of flower {args.action}.")


def _new(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        config = options.resolve(args)
        from fedjax_mrl.flower import app_folder

        made = app_folder.create(args.folder, config)
    print(f"{config.title} for {config.num_clients} nodes: {made}")
    print(f"Its commands are in {made / 'README.md'}")
    return 0


def _keys(args: argparse.Namespace) -> int:
    number = args.clients
    if number is None or not (number.isascii() and number.isdecimal()):
        raise UsageError(f"--clients takes a number of nodes, as 5; got {number!r}.")
    if args.host is None:
        raise UsageError("Say how nodes reach the server: --host NAME,ADDRESS.")
    _require("cryptography")
    with options.mistakes_are_usage_errors():
        from fedjax_mrl.flower import keys

        hosts = [host.strip() for host in args.host.split(",")]
        made = keys.create(args.folder, hosts, int(number))
    print(
        f"{len(made)} files in {args.folder}: ca.pem is for every machine, server.pem"
    )
    print("and server.key for the server, each client-K.key for its own node alone.")
    return 0


def _worker(args: argparse.Namespace) -> int:
    client, state = _whose(args)
    path = pathlib.Path(args.socket or state / "run" / "socket").absolute()
    with options.mistakes_are_usage_errors():
        return _serve(_config(args), client, state, path)


def _serve(
    config: "RunConfig", client: int, state: pathlib.Path, path: pathlib.Path
) -> int:
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    from fedjax_mrl.cli import devices, signals
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.flower.worker import Worker

    devices.provide(config)
    tell = lambda text: print(f"client {client}: {text}", flush=True)
    made = Worker(Federation(config), client, state, path, tell)
    tell(f"ready at {path}")
    print(f"  flower-supernode ... --node-config 'socket=\"{path}\"'", flush=True)
    with signals.Stop() as stop:
        made.run(stop)
        return 128 + (stop() or 0)


def _try(args: argparse.Namespace) -> int:
    if args.out is None:
        raise UsageError("Say where keys, states and logs go: --out DIR.")
    _require("flwr")
    from fedjax_mrl.cli import signals
    from fedjax_mrl.flower import loopback, settings

    app, out = args.folder, pathlib.Path(args.out)
    with options.mistakes_are_usage_errors():
        clients = settings.read(app).federation.num_clients
        there = loopback.Loopback(app, clients, out)
    tell = lambda text: print(text, flush=True)
    with signals.Stop() as stop, there:
        try:
            return loopback.play(there, clients, tell, stop)
        except loopback.FlowerError as error:
            print(f"fedjax-mrl: {error}", file=sys.stderr)
            return 1


def _evaluate(args: argparse.Namespace) -> int:
    client, state = _whose(args)
    with options.mistakes_are_usage_errors():
        config = _config(args)
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from fedjax_mrl.cli import devices
        from fedjax_mrl.federation import Federation
        from fedjax_mrl.flower.node import Node

        if not state.is_dir():
            raise UsageError(f"{state} holds no state of a client.")
        devices.provide(config)
        node = Node(Federation(config), client, state)
        if not node.runs():
            raise UsageError(f"{state} holds no state of a client.")
        run = node.runs()[-1]
        version = node.versions(run).known()[-1]
        found = node.accuracies(run, version)
    tested = len(node.engine.data.y_test)
    print(f"client {client} after round {version.round}, {tested} test examples:")
    for head, accuracy in found.items():
        print(f"  {head:20}{accuracy:.4f}")
    return 0


def _whose(args: argparse.Namespace) -> tuple[int, pathlib.Path]:
    """The client of a node, and the folder of its state."""
    client = client_number(args.client)
    if client is None or args.state is None:
        raise UsageError("Say whose worker it is: --client K --state DIR.")
    _require("safetensors")
    return client, pathlib.Path(args.state)


def _config(args: argparse.Namespace) -> "RunConfig":
    """The federation of an app, with what a node decides by itself.

    Raises:
        FlowerError, ConfigError: if it is none.
    """
    from fedjax_mrl.flower import settings

    config = settings.read(args.folder).federation
    local = {} if args.data_dir is None else {"data_dir": args.data_dir}
    return configs.build(vars(config), local)


def _require(package: str) -> None:
    """Refuses what a missing package of the extra is needed for.

    Raises:
        UsageError: with the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise UsageError(missing.sentence("This", package, ".[flower]"))


flower = Command("the federation over a real network, by Flower", _configure, _execute)
