"""`fedjax-mrl personalize`: clients that come to a run after its rounds."""

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from fedjax_mrl.cli import options, stored
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.personalized import Asked, Personalized
    from fedjax_mrl.results import Row
    from fedjax_mrl.runs.directory import RunDirectory

__all__ = ["personalize"]

_MODES = ("fine-tuned", "frozen")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="directory of an earlier run")
    parser.add_argument(
        "--clients",
        metavar="8,9,...",
        help="clients that were held out (default: all, see run --held-out-clients)",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="npz of one client from outside instead, with x_train, y_train, x_test "
        "and y_test like the run's data; without the last two a test part is drawn",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="its architecture, any that `run --models` takes (default: the next of "
        "the run's --models)",
    )
    parser.add_argument(
        "--epochs", metavar="E", default="10", help="passes over its data (default 10)"
    )
    parser.add_argument(
        "--shared",
        metavar="HOW",
        choices=_MODES,
        default=_MODES[0],
        help="the shared part, fine-tuned or frozen (default fine-tuned)",
    )
    parser.add_argument(
        "--learning-rate", metavar="RATE", help="(default: the run's, without decay)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="csv of the table (default: personalized-HOW.csv in the run directory, "
        "with --data personalized-HOW-FILE.csv)",
    )
    parser.add_argument(
        "--export",
        metavar="DIR",
        help="write their models too, as `export` does, each for the method's first "
        "head: to DIR/client-K, with --data FILE to DIR/FILE",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the table (--out) and models (--export) that are there",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    options.add_programs(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        asked = _asked(args)
        from fedjax_mrl import paths
        from fedjax_mrl.runs import newcomers
        from fedjax_mrl.runs.directory import RunDirectory, require_no_part

        directory = RunDirectory.open(args.run)
        own = directory.path / newcomers.name(args.shared, args.data)
        out = own if args.out is None else paths.local(args.out, "--out")
        require_no_part(out)
        newcomers.check(out, overwrite=args.overwrite)
        config = stored.configuration(directory, data_dir=args.data_dir)
        federation = stored.federation(directory, config)
        from fedjax_mrl import personalizing
        from fedjax_mrl.cli import console, main
        from fedjax_mrl.simulation.divergence import Diverged

        come = personalizing.prepare(federation, asked)
        models = _models(args, come.newcomers.ids.tolist())
        state = stored.newest(federation, directory)
    if come.data is not federation.dataset:
        console.tell(*come.data.notes)
    try:
        found = personalizing.play(federation, state, come)
    except Diverged as error:
        return main.fail(error, 3)
    console.show(console.newcomer_table(_title(config.title, found), found))
    if not found.trains_shared:
        console.show(
            "Clients of this method train nothing of what is shared: fine-tuned and "
            "frozen are the same."
        )
    if not found.trained:
        console.show(
            "Clients of this method have nothing private: with what is shared frozen, "
            "nothing was trained. Leave --shared out to train it."
        )
    about = {
        "round": found.round,
        "shared": asked.shared,
        "epochs": asked.epochs,
        "learning_rate": found.learning_rate,
    }
    rows = [{**about, **row} for row in found.rows()]
    status = _write(directory, out, rows, own=out == own, overwrite=args.overwrite)
    return _export(found, models, directory, args.overwrite) or status


def _models(args: argparse.Namespace, clients: list[int]) -> dict[int, pathlib.Path]:
    """The folders of the models, each of which can be written; none if not asked."""
    if args.export is None:
        return {}
    from fedjax_mrl import paths
    from fedjax_mrl.exporting import folder, writing
    from fedjax_mrl.runs import newcomers

    writing.require_formats(None)
    whole = paths.local(args.export, "The folder of --export")
    if whole.exists() and not whole.is_dir():
        raise UsageError(f"--export takes a folder, but {args.export} is a file.")
    name = lambda client: newcomers.stem(args.data) if args.data else f"client-{client}"
    return {
        client: folder.check(whole / name(client), overwrite=args.overwrite)
        for client in clients
    }


def _export(
    found: "Personalized",
    models: dict[int, pathlib.Path],
    directory: "RunDirectory",
    overwrite: bool,
) -> int:
    """Writes the models; the exit status."""
    from fedjax_mrl.cli import main
    from fedjax_mrl.exporting import subject, writing
    from fedjax_mrl.exporting.error import ExportError

    for client, path in models.items():
        model = subject.newcomer(found, client, found.heads[0])
        run = str(directory.path)
        try:
            writing.export(model, path, overwrite=overwrite, run=run)
        except (OSError, ExportError) as error:
            reason = getattr(error, "strerror", None) or error
            return main.fail(f"The model is not written to {path}: {reason}", 1)
        print(f"written to {path}: the model of client {client}, head {found.heads[0]}")
    return 0


def _title(run: str, found: "Personalized") -> str:
    asked = found.asked
    return (
        f"{run}, round {found.round}: test accuracy of clients that came then, "
        f"shared part {asked.shared}, epochs {asked.epochs}"
    )


def _write(
    directory: "RunDirectory",
    path: pathlib.Path,
    rows: "list[Row]",
    *,
    own: bool,
    overwrite: bool,
) -> int:
    """Writes the table, into the run's own directory only if nobody else does."""
    from fedjax_mrl.cli import main
    from fedjax_mrl.runs import newcomers
    from fedjax_mrl.runs.error import BusyError

    try:
        if own:
            directory.lock()
        newcomers.write(path, rows, overwrite=overwrite)
    except BusyError:
        print(
            f"fedjax-mrl: {path} is not written, since another process is writing that "
            "run; give --out FILE to keep the table.",
            file=sys.stderr,
        )
        return 0
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return main.fail(f"The table is not written to {path}: {reason}", 1)
    finally:
        if own:
            directory.unlock()
    print(f"written to {path}")
    return 0


def _asked(args: argparse.Namespace) -> "Asked":
    """The words of the command, read."""
    from fedjax_mrl.personalized import Asked

    return Asked(
        None if args.clients is None else _numbers(args.clients),
        _whole("--epochs", args.epochs),
        args.shared,
        None if args.learning_rate is None else _rate(args.learning_rate),
        args.data,
        args.model,
    )


def _numbers(text: str) -> list[int]:
    return [_whole("--clients", word.strip(), low=0) for word in text.split(",")]


def _whole(option: str, word: str, low: int = 1) -> int:
    if not (word.isascii() and word.isdecimal()) or int(word) < low:
        numbers = "whole numbers" if option == "--clients" else "a whole number"
        raise UsageError(f"{option} takes {numbers}, at least {low}; got {word!r}.")
    return int(word)


def _rate(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise UsageError(f"--learning-rate takes a number; got {word!r}.") from None


personalize = Command(
    "brings clients into a run that it has not seen: before, after, alone",
    _configure,
    _execute,
)
