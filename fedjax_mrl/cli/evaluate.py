"""`fedjax-mrl evaluate`: every inference mode, every client, from the checkpoint."""

import argparse
import logging

from fedjax_mrl.cli import options
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
        from fedjax_mrl.rundir import RunDirectory

        directory = RunDirectory.open(args.run)
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        import dataclasses

        import jax

        from fedjax_mrl import checkpoint, partitions
        from fedjax_mrl.cli import console
        from fedjax_mrl.config import RunConfig
        from fedjax_mrl.federation import Federation

        config = RunConfig.from_json(directory.read_text("config.json"))
        if args.data_dir is not None:
            config = dataclasses.replace(config, data_dir=args.data_dir)
        federation = Federation(
            config, partition=partitions.load(directory.path / "partition.npz")
        )
        like = jax.eval_shape(federation.init)
        state = checkpoint.restore(directory.checkpoints, like)
    scores = federation.evaluate(state)
    heads = federation.algorithm.heads
    title = (
        f"{config.algorithm} on {config.dataset}, round {state.round}: mean test "
        "accuracy of clients"
    )
    console.show(console.accuracy_table(title, federation.groups, heads, scores))
    if args.clients:
        console.show(console.client_table(federation.groups, heads, scores))
    return 0


evaluate = Command(
    "every inference mode, every client, from a run's checkpoint", _configure, _execute
)
