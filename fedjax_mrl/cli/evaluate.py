"""`fedjax-mrl evaluate`: every inference mode, every client, from the checkpoint."""

import argparse
import sys

from fedjax_mrl.cli import options, stored
from fedjax_mrl.cli.command import Command

__all__ = ["evaluate"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of an earlier run")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    parser.add_argument(
        "--clients", action="store_true", help="one line for every client"
    )


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        from fedjax_mrl.runs.directory import RunDirectory

        directory = RunDirectory.open(args.run)
        config = stored.configuration(directory, data_dir=args.data_dir)
        federation = stored.federation(directory, config)
        from fedjax_mrl import loading
        from fedjax_mrl.cli import console

        unusable: list[str] = []
        state = loading.newest(federation, directory, unusable.append)
    for text in unusable:
        print(f"fedjax-mrl: {text}", file=sys.stderr)
    with console.bar("evaluate", config.num_clients, "client") as bar:
        scores = federation.scores(state, bar.update)
    heads = federation.algorithm.heads
    title = f"{config.title}, round {state.round}: mean test accuracy of clients"
    console.show(console.accuracy_table(title, federation.groups, heads, scores))
    if args.clients:
        console.show(console.client_table(federation.groups, heads, scores))
    return 0


evaluate = Command(
    "every inference mode, every client, from a run's checkpoint", _configure, _execute
)
