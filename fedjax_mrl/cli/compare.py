"""`fedjax-mrl compare`: several algorithms and seeds on the same data split."""

import argparse
import logging
import pathlib
import sys

from fedjax_mrl.cli import options
from fedjax_mrl.cli.command import Command, UsageError

__all__ = ["compare"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--algorithms", metavar="A,B,...", required=True, help="what to compare"
    )
    parser.add_argument(
        "--seeds", metavar="0,1,...", default="0", help="seeds (default 0)"
    )
    parser.add_argument(
        "--target", metavar="ACCURACY", help="also report the rounds to reach it"
    )
    parser.add_argument("--out", metavar="DIR", default="runs/compare")
    parser.add_argument("--quiet", action="store_true", help="print only the table")
    options.add(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        base = options.resolve(args)
        if base.client_store == "disk":
            raise UsageError(
                "--client-store disk belongs to one run; compare takes auto, device or "
                "host. Play such runs one by one with `fedjax-mrl run`."
            )
        seeds = [_number(int, "--seeds", word) for word in args.seeds.split(",")]
        target = args.target and _number(float, "--target", args.target)
        logging.getLogger("absl").setLevel(logging.ERROR)
        from fedjax_mrl import comparison, datasets
        from fedjax_mrl.cli import devices

        devices.provide(base)
        from fedjax_mrl.cli import console

        out = pathlib.Path(args.out)
        names = [name.strip() for name in args.algorithms.split(",")]
        runs = comparison.plan(base, names, seeds, out)
        dataset = datasets.load(base.dataset, base.data_dir)
    built: dict = {}
    rows, worst = [], 0
    for number, run in enumerate(runs, start=1):
        label = f"[{number}/{len(runs)}] {run.path.name}"
        status, code = "done", 0
        if comparison.finished(run):
            _say(args, f"{label}: already done")
        else:
            try:
                federation = _federation(run, dataset, built)
                status, code = _one(run, federation, label, args)
            except ValueError as error:
                status, code = str(error), 2
        if status != "done":
            print(f"fedjax-mrl: {run.path.name}: {status}", file=sys.stderr)
        worst = max(worst, code)
        if code > 128:  # a signal stops all; the same command goes on from here
            return code
        rows.append(comparison.row(run, target, status))
    table = comparison.write(out, runs, rows)
    print(table, end="")
    console.show(f"Written to {out}")
    return worst


def _federation(run, dataset, built):
    """The run's federation; an algorithm is compiled once for all its seeds."""
    from fedjax_mrl.federation import Federation

    name = run.config.algorithm
    if name not in built:
        built.clear()  # programs of one algorithm at a time
        built[name] = Federation(run.config, dataset=dataset)
    return built[name].with_seed(run.config.seed)


def _one(run, federation, label, args) -> tuple[str, int]:
    """Runs one cell: what became of it, and the exit status that means."""
    from fedjax_mrl.cli import training

    directory, state = _open(run, federation)
    status, message, outcome = training.play(
        federation, directory, label, quiet=args.quiet, state=state
    )
    if outcome is None:
        return message, status
    headline = outcome.summary["headline"]
    if headline is not None:
        _say(args, f"{label}: {headline['head']} {headline['last']:.4f}")
    return "done", 0


def _open(run, federation):
    """The run's directory, and the state to go on from if it was interrupted."""
    from fedjax_mrl import runner
    from fedjax_mrl.rundir import RunDirectory

    text = run.config.to_json()
    directory = RunDirectory(run.path)
    try:
        begun = directory.read_text("config.json") == text
    except (OSError, ValueError):
        begun = False
    if not begun:
        return RunDirectory.create(run.path, config=text, overwrite=True), None
    directory.lock()
    warn = lambda text: print(f"fedjax-mrl: {text}", file=sys.stderr)
    state = runner.restore(federation, directory, warn)
    directory.cut(0 if state is None else state.round, run.config.eval_every)
    return directory, state


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, flush=True)


def _number(kind: type, flag: str, word: str):
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"{flag} takes numbers; got {word!r}.") from None


compare = Command(
    "several algorithms and seeds on one data split", _configure, _execute
)
