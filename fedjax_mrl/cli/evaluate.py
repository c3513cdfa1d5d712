"""`fedjax-mrl evaluate`: every inference mode, every client, from the checkpoint."""

import argparse
from typing import TYPE_CHECKING

from fedjax_mrl.cli import options, stored
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.costs import Machines
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.runs.directory import RunDirectory

__all__ = ["evaluate"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of an earlier run")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    parser.add_argument(
        "--clients", action="store_true", help="one line for every client"
    )
    parser.add_argument(
        "--standalone",
        metavar="RUN",
        help="run of Standalone whose clients these are compared with (default: one "
        "beside this run with the same split and seed)",
    )
    parser.add_argument(
        "--bandwidth",
        metavar="DOWN,UP",
        help="Mbit/s of a client: also says how long the rounds would have taken on "
        "the clients' own devices",
    )
    parser.add_argument(
        "--device-speed",
        metavar="GFLOPS",
        help="of the clients' devices, one number or by architecture, as in "
        "cnn1=20,cnn2=5 (default 10)",
    )
    options.add_programs(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        from fedjax_mrl.runs.directory import RunDirectory

        directory = RunDirectory.open(args.run)
        config = stored.configuration(directory, data_dir=args.data_dir)
        alone = _standalone(args.standalone, directory, config)
        federation = stored.federation(directory, config)
        machines = _machines(args, federation)
        from fedjax_mrl import loading
        from fedjax_mrl.cli import console

        state = stored.newest(federation, directory)
    with console.bar("evaluate", config.num_clients, "client") as bar:
        scores = federation.scores(state, bar.update)
    heads = federation.algorithm.heads
    title = f"{config.title}, round {state.round}: mean test accuracy of clients"
    console.show(console.accuracy_table(title, federation.groups, heads, scores))
    from fedjax_mrl import costs
    from fedjax_mrl.runs import fairness

    gains = None
    if alone is not None:
        gains = fairness.gains(
            *(stored.rows(each, "clients.csv") for each in (directory, alone))
        )
    if args.clients:
        names = federation.client_names
        table = console.client_table(federation.groups, heads, scores, gains, names)
        console.show(table)
    if gains is not None and alone is not None:
        console.show(f"{gains} ({alone.path})", "")
    for name in ("rounds.csv", "metrics.csv"):
        stored.rows(directory, name)  # tells of damage
    tables = loading.tables(directory, state.round)
    rows = costs.to_targets(
        federation, tables["rounds"], tables["metrics"], machines=machines
    )
    if rows:
        console.show(console.cost_table(rows))
    return 0


def _standalone(
    given: str | None, directory: "RunDirectory", config: "RunConfig"
) -> "RunDirectory | None":
    """The run of Standalone to compare with; None if there is none."""
    from fedjax_mrl.runs import fairness
    from fedjax_mrl.runs.directory import RunDirectory

    if given is None:
        found = fairness.beside(directory.path, config)
        return None if found is None else RunDirectory.open(found)
    alone = RunDirectory.open(given)
    problem = fairness.differing(stored.configuration(alone), config)
    if problem:
        raise UsageError(
            f"--standalone needs a run of Standalone with the same clients, data and "
            f"training; {alone.path} differs in {', '.join(problem)}."
        )
    return alone


def _machines(args: argparse.Namespace, federation: "Federation") -> "Machines | None":
    """The devices and connections that the flags describe."""
    from fedjax_mrl import costs

    if args.bandwidth is None:
        if args.device_speed is not None:
            raise UsageError("--device-speed needs --bandwidth DOWN,UP beside it.")
        return None
    speeds = args.device_speed or "10"
    try:
        down, up = (float(word) for word in args.bandwidth.split(","))
        if "=" in speeds:
            pairs = [word.split("=") for word in speeds.split(",")]
            speed = {name.strip(): float(number) for name, number in pairs}
            if len(speed) < len(pairs):
                raise ValueError("an architecture twice")
        else:
            speed = float(speeds)
    except ValueError:
        raise UsageError(
            "--bandwidth takes two numbers, as in 20,5, and --device-speed one, or one "
            f"for each architecture, as in cnn1=20,cnn2=5; got {args.bandwidth!r} and "
            f"{speeds!r}."
        ) from None
    return costs.machines((down, up), speed, federation.groups)


evaluate = Command(
    "every inference mode, every client, gains and costs, from a run's checkpoint",
    _configure,
    _execute,
)
