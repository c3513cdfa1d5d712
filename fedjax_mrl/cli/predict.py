"""`fedjax-mrl predict`: a personal model classifies image files."""

import argparse
import csv
import io
import json
import pathlib
import sys
from typing import TYPE_CHECKING, NamedTuple

from fedjax_mrl import whole_file
from fedjax_mrl.cli import devices, export, options, streams
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.exporting.loaded import PersonalModel

__all__ = ["predict"]


class Guess(NamedTuple):
    """One class that a model may see in an example."""

    name: str
    probability: float


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="what `fedjax-mrl export` wrote, or a run with --client",
    )
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image files, or arrays of images in npy and npz files",
    )
    parser.add_argument("--top", metavar="N", help="the N likeliest classes (1)")
    parser.add_argument(
        "--resize",
        action="store_true",
        help="bring images of another size to that of the training images",
    )
    parser.add_argument(
        "--csv", metavar="FILE", help="as a table to a new file, or - to print it"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the file of --csv"
    )
    group = parser.add_argument_group("if MODEL is a run")
    group.add_argument("--client", metavar="K", help="whose model, from 0")
    export.add_choice(group)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        top = _whole(args.top)
        if args.csv is not None and args.json:
            raise UsageError("Give --csv or --json, not both.")
        table = None if args.csv in (None, "-") else _file(args.csv, args.overwrite)
        model = _model(args)
        from fedjax_mrl.exporting import inputs

        files = [pathlib.Path(image) for image in args.images]
        names, examples = inputs.read(files, model.description, resize=args.resize)
        guesses = _guesses(model, examples, top)
    if args.csv is not None:
        return _write(_table(names, guesses), table)
    for line in _objects(names, guesses) if args.json else _lines(names, guesses):
        print(line)
    return 0


def _file(word: str, overwrite: bool) -> pathlib.Path:
    """The file of the table, which can be written."""
    from fedjax_mrl import paths
    from fedjax_mrl.runs import directory

    path = paths.local(word, "--csv")
    directory.require_no_part(path)
    whole_file.check(path, "--csv", UsageError, overwrite=overwrite)
    return path


def _model(args: argparse.Namespace) -> "PersonalModel":
    """The exported model, or the client of a run."""
    path = pathlib.Path(args.model)
    of_run = {"client": args.client, "head": args.head, "point": args.point}
    given = [name for name, value in of_run.items() if value is not None]
    if (path / "config.json").is_file() and not (path / "model.json").exists():
        from fedjax_mrl.exporting import asking

        client = export.client_number(args.client)
        federation = export.trained(args.model, args.data_dir)
        return asking.of_federation(
            federation, client, args.head, args.point or "local"
        )
    devices.require()
    from fedjax_mrl.exporting import loaded

    with streams.silenced():  # XLA says more of a program that it cannot read
        model = loaded.load_model(path)
    if given:
        raise UsageError(
            f"--{given[0]} is for a run directory; {path} is the model of client "
            f"{model.description.client}, head {model.description.head}."
        )
    return model


def _guesses(model: "PersonalModel", examples, top: int) -> list[list[Guess]]:
    """The likeliest classes of each example, the likeliest first."""
    found = []
    for row in model.probabilities(examples):
        order = (-row).argsort(kind="stable")[:top]
        found.append([Guess(model.classes[c], float(row[c])) for c in order])
    return found


def _lines(names: list[str], guesses: list[list[Guess]]) -> list[str]:
    """File, class and probability, with tabs; in columns on a terminal."""
    shown = [_printable(name) for name in names]
    if sys.stdout.isatty():
        width = max(map(len, shown))
        shown, between = [name.ljust(width) for name in shown], "  "
    else:
        between = "\t"
    return [
        between.join(
            [name, *(f"{_printable(g.name)}{between}{g.probability:.4f}" for g in row)]
        )
        for name, row in zip(shown, guesses, strict=True)
    ]


def _objects(names: list[str], guesses: list[list[Guess]]) -> list[str]:
    """A JSON object for each example."""
    return [
        json.dumps({"file": name, "classes": [guess._asdict() for guess in row]})
        for name, row in zip(names, guesses, strict=True)
    ]


def _table(names: list[str], guesses: list[list[Guess]]) -> str:
    """A csv table with a row for each example and class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "rank", "class", "probability"])
    for name, row in zip(names, guesses, strict=True):
        for rank, guess in enumerate(row, 1):
            writer.writerow([name, rank, guess.name, f"{guess.probability:.6g}"])
    return text.getvalue()


def _write(text: str, file: pathlib.Path | None) -> int:
    """Prints a table or writes it as a whole; returns the exit status."""
    if file is None:
        print(text, end="")
        return 0
    try:
        whole_file.write(file, text.encode(), alone=False)
    except OSError as error:
        reason = error.strerror or error
        print(
            f"fedjax-mrl: Cannot write {file}: {reason}. Nothing was written.",
            file=sys.stderr,
        )
        return 1
    print(f"Written to {file}")
    return 0


def _printable(name: str) -> str:
    """A name on one line."""
    escaped = lambda c: c if c.isprintable() else repr(c)[1:-1]
    return "".join(map(escaped, name))


def _whole(word: str | None) -> int:
    if word is None:
        return 1
    if not (word.isascii() and word.isdecimal()) or int(word) < 1:
        raise UsageError(f"--top takes a whole number, at least 1; got {word!r}.")
    return int(word)


predict = Command(
    "classify image files with a client's personal model", _configure, _execute
)
