"""`fedjax-mrl compare`: several algorithms and seeds on the same data split."""

import argparse
import itertools
import logging
import pathlib
import sys

from fedjax_mrl.cli import options, stored
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
        "--learning-rates",
        metavar="0.1,0.01,...",
        help="learning rates to compare as well (default: the one of --learning-rate)",
    )
    parser.add_argument(
        "--together",
        metavar="N",
        default="0",
        help="seeds and learning rates of an algorithm that are played at once; 0 is "
        "as many as memory holds well (default 0)",
    )
    parser.add_argument(
        "--target", metavar="ACCURACY", help="also report the rounds to reach it"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="runs/compare",
        help="folder of the comparison (runs/compare); the runs of one configuration "
        "that it holds stay and are in its tables",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace runs of another configuration that are in the way",
    )
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
        words = (args.learning_rates or "").split(",")
        rates = [_number(float, "--learning-rates", word) for word in words if word]
        together = _number(int, "--together", args.together)
        if together < 0:
            raise UsageError(f"--together must be at least 0; got {together}.")
        target = args.target and _number(float, "--target", args.target)
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from fedjax_mrl import datasets
        from fedjax_mrl.cli import devices
        from fedjax_mrl.planning import plan
        from fedjax_mrl.runs import comparison, comparison_folder

        devices.provide(base)
        devices.require()
        from fedjax_mrl.cli import console
        from fedjax_mrl.federation import Federation
        from fedjax_mrl.runs.directory import RunDirectory, RunDirectoryError

        out = pathlib.Path(args.out)
        names = [name.strip() for name in args.algorithms.split(",")]
        runs = comparison.plan(base, names, seeds, out, rates)
        dataset = datasets.load(base.dataset, base.data_dir)
        place = comparison_folder.find(
            out,
            base,
            runs,
            rates=bool(rates),
            overwrite=args.overwrite,
            data_sha256=dataset.sha256(),
        )
        runs = place.runs
        for run in runs:
            if not comparison.begun(run):
                RunDirectory.check(run.path, overwrite=run.path in place.replaced)
    for path in place.left_out:
        text = f"{path} is of another configuration; it stays and is in no table."
        print(f"fedjax-mrl: {text}", file=sys.stderr)
    label = lambda run: f"[{runs.index(run) + 1}/{len(runs)}] {run.path.name}"
    ends: dict[pathlib.Path, str] = {}
    worst = 0
    for _, own in itertools.groupby(runs, lambda run: run.config.algorithm):
        own = list(own)
        todo = []
        for run in own:
            if comparison.finished(run):
                _say(args, f"{label(run)}: already done")
                ends[run.path] = "done"
            else:
                todo.append(run)
        federation = None  # compiled once for all of an algorithm's trials
        while todo:
            some = todo
            try:
                federation = federation or Federation(todo[0].config, dataset=dataset)
                size = together or plan.trials_that_fit(federation)
                some = todo[:size]
                played = _play(some, federation, label, args, place.replaced)
            except ValueError as error:
                played = [(str(error), 2)] * len(some)
            todo = todo[len(some) :]
            for run, (status, code) in zip(some, played, strict=True):
                ends[run.path], worst = status, max(worst, code)
                if status != "done":
                    print(f"fedjax-mrl: {run.path.name}: {status}", file=sys.stderr)
            if worst > 128:  # a signal stops all; the same command goes on from here
                return worst
    before = comparison_folder.earlier(out)
    if target is None:
        target = comparison_folder.target(before)
    ends |= {run.path: comparison_folder.status(run, before) for run in place.others}
    every = [*runs, *place.others]
    rows = [comparison.row(run, target, ends[run.path]) for run in every]
    try:
        table = comparison.write(out, every, rows)
    except (OSError, RunDirectoryError) as error:
        text = f"The tables in {out} are not written: {error} The runs stay; mend it, "
        print(f"fedjax-mrl: {text}then repeat the command.", file=sys.stderr)
        return max(worst, 1)
    print(table, end="")
    console.show(f"Written to {out}")
    return worst


def _play(runs, federation, label, args, replaced) -> list[tuple[str, int]]:
    """Plays trials of one federation together: what became of each, and its status."""
    from fedjax_mrl.cli import training
    from fedjax_mrl.runs.runner import Entry

    entries, refused = {}, {}
    for run in runs:
        own = federation.with_trial(run.config.seed, run.config.learning_rate)
        try:
            directory, state = _open(run, own, run.path in replaced)
        except ValueError as error:
            refused[run.path] = (str(error), 2)
        else:
            entries[run.path] = Entry(own, directory, state=state)
    ended = {}
    if entries:
        last = f" to {runs[-1].path.name}" if len(runs) > 1 else ""
        found = training.play_together(
            list(entries.values()), f"{label(runs[0])}{last}", quiet=args.quiet
        )
        ended = dict(zip(entries, found, strict=True))
    result = []
    for run in runs:
        if run.path in refused:
            result.append(refused[run.path])
            continue
        status, message, outcome = ended[run.path]
        result.append((message or "done", status))
        headline = outcome and outcome.summary["headline"]
        if headline:
            _say(args, f"{label(run)}: {headline['head']} {headline['last']:.4f}")
    return result


def _open(run, federation, overwrite):
    """The run's directory, and the state to go on from if it was interrupted."""
    from fedjax_mrl.runs import comparison, resuming
    from fedjax_mrl.runs.directory import RunDirectory

    text = run.config.to_json()
    if not comparison.begun(run):
        return RunDirectory.create(run.path, config=text, overwrite=overwrite), None
    directory = RunDirectory(run.path)
    directory.lock()
    try:
        warn = lambda text: print(f"fedjax-mrl: {text}", file=sys.stderr)
        state = resuming.restore(federation, directory, warn)
        round = 0 if state is None else state.round
        elsewhere = stored.moved(directory, round)
        if elsewhere:
            warn(elsewhere)
        directory.cut(round, run.config.eval_every)
    except BaseException:
        directory.unlock()
        raise
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
