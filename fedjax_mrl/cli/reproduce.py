"""`fedjax-mrl reproduce`: one published table or figure, beside the paper's numbers."""

import argparse
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fedjax_mrl.cli import (
    options,
    reproduce_cells,
    reproduce_checks,
    reproduce_folder,
    telling,
)
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fedjax_mrl.reproducing.parts import Finder, Part
    from fedjax_mrl.reproducing.preset import Preset, Scale
    from fedjax_mrl.runs.comparison import Run

__all__ = ["reproduce"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reproduction",
        metavar="PRESET",
        help="a table or figure that `fedjax-mrl list` names, or a YAML file of one",
    )
    parser.add_argument(
        "--scale",
        metavar="NAME",
        default="laptop",
        help="laptop, a smaller version in under two hours, or full, as in the paper "
        "(default laptop)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the table and its runs (default runs/reproduce/PRESET); runs "
        "that it holds are not run again, and interrupted ones go on",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of prepared or official files (default: TFDS's own)",
    )
    parser.add_argument(
        "--devices", metavar="N", help="devices that the clients are split over"
    )
    parser.add_argument(
        "--only",
        metavar="SETTING/RUN",
        action="append",
        default=[],
        help="play the cells that are called so, as in n100/fedmrl-0 or 'n10/*'; "
        "repeatable",
    )
    parser.add_argument(
        "--limit", metavar="N", help="play at most so many of the cells that are left"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show the cells, how far each has come and what is left, and run nothing",
    )
    parser.add_argument("--quiet", action="store_true", help="print only the table")
    telling.add(parser)
    options.add_programs(parser)


class _Asked(NamedTuple):
    """The words of the command after they were read.

    Attributes:
        preset: the table.
        scale: its size.
        out: its folder.
        parts: the runs of every setting.
        cells: those that the command names.
        left: those that are not done, of which it plays all but `held`.
        held: folders of cells that are the first rounds of others that it plays before
            -> labels of these.
        find: says how far a run has come.
        command: the words with all options, for the table and to go on with.
    """

    preset: "Preset"
    scale: "Scale"
    out: pathlib.Path
    parts: "list[Part]"
    cells: "list[tuple[Part, Run]]"
    left: "list[tuple[Part, Run]]"
    held: "dict[pathlib.Path, str]"
    find: "Finder"
    command: str


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        asked = _read(args)
        told = telling.read(args)._replace(again=asked.command)
    from fedjax_mrl.reproducing import parts

    if args.dry_run:
        print("\n".join(_overview(asked)))
        return 0
    failed: list[str] = []
    status = 0
    if asked.left:
        finder = functools.partial(parts.Finder, asked.out)
        with options.mistakes_are_usage_errors():
            loader = reproduce_cells.Loader(told)
            loader.require(asked.left, asked.find)
        if not args.quiet:
            print(_intention(asked), flush=True)
        status, failed = reproduce_cells.play(asked.left, finder, loader, told)
        if status > 128:  # a signal; the same command goes on from here
            return status
    written = _write(asked)
    if failed:
        others = "" if len(failed) == len(asked.left) else "The others are done; "
        print(
            f"fedjax-mrl: {len(failed)} of {len(asked.left)} cells failed: "
            f"{', '.join(failed)}. {others or 'None is done; '}the same command tries "
            f"{'these' if others else 'them'} again.",
            file=sys.stderr,
        )
    return max(status, written)


def _read(args: argparse.Namespace) -> _Asked:
    """Reads the words of the command.

    Raises:
        ValueError: for a preset, scale, cell or number that is none.
    """
    from fedjax_mrl import discovery
    from fedjax_mrl.reproducing import parts, preset

    found = preset.get(args.reproduction)
    if args.scale not in found.scales:
        unknown = discovery.unknown("scale", args.scale, found.scales)
        raise UsageError(f"{found.file}: scales: {unknown}")
    scale = found.scales[args.scale]
    out = reproduce_folder.read(args.out, found.name)
    given = {name: getattr(args, name) for name in ("data_dir", "devices")}
    given = {name: value for name, value in given.items() if value is not None}
    planned = parts.plan(found, scale, out, given)
    chosen = parts.chosen(planned, args.only)
    names = {part.name for part, _ in chosen}
    used = [part for part in planned if part.name in names]
    reproduce_checks.require_data_named(found.file, used)
    find = parts.Finder(out)
    reproduce_folder.require(out, planned, find)
    left = [(part, run) for part, run in chosen if find(run).path is None]
    held = parts.first_rounds(left)
    return _Asked(
        found,
        scale,
        out,
        planned,
        chosen,
        _cut(left, held, _limit(args.limit)),
        held,
        find,
        reproduce_checks.words(args),
    )


def _limit(word: str | None) -> int | None:
    if word is None:
        return None
    if not word.isdecimal() or int(word) < 1:
        raise UsageError(f"--limit must be a whole number above 0; got {word!r}.")
    return int(word)


def _cut(
    left: "list[tuple[Part, Run]]",
    held: "Mapping[pathlib.Path, str]",
    limit: int | None,
) -> "list[tuple[Part, Run]]":
    """The first cells of which at most `limit` are to be played."""
    found, played = [], 0
    for part, run in left:
        played += run.path not in held
        if limit is not None and played > limit:
            break
        found.append((part, run))
    return found


def _intention(asked: _Asked) -> str:
    """One line that says what is going to be run."""
    runs = [run for _, run in asked.left if run.path not in asked.held]
    held = len(asked.left) - len(runs)
    more = f"; {held} more will be the first rounds of these" if held else ""
    done = sum(asked.find(run).path is not None for _, run in asked.cells)
    return (
        f"{asked.preset.name}, {asked.scale.name}: {done} of {len(asked.cells)} cells "
        f"are done; {len(runs)} to run{_about(asked, runs)}{more}."
    )


def _about(asked: _Asked, runs: "Sequence[Run]") -> str:
    """The expected time of some runs, without what they have played.

    "" if it is unknown, or there is none.
    """
    from fedjax_mrl.reproducing import parts

    if not runs:
        return ""
    total = 0.0
    for run in runs:
        whole = parts.seconds(asked.scale, run.config)
        if whole is None:
            return ""
        left = 1 - asked.find(run).rounds / max(1, run.config.rounds)
        total += whole * left
    return f", about {_hours(total)}"


def _hours(seconds: float) -> str:
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h"


def _overview(asked: _Asked) -> list[str]:
    """What --dry-run prints."""
    preset, scale = asked.preset, asked.scale
    said = {
        "repeats": preset.repeats,
        "scale": scale.name + (f". {scale.differs}" if scale.differs else ""),
        "hardware": preset.hardware,
        "time": scale.time,
        "paper": preset.source
        or ("" if preset.paper else "no figures known as numbers"),
        "measured": _measured(scale),
        "folder": str(asked.out),
    }
    lines = [f"{preset.name}: {preset.title}"]
    lines += [f"{name:8}  {text}" for name, text in said.items() if text]
    lines.append("")
    width = max(len(part.label(run)) for part, run in asked.cells)
    for part, run in asked.cells:
        far = asked.find(run)
        if far.path is not None:
            state = f"done, in {far.path}" if far.taken else "done"
        elif run.path in asked.held:
            label = asked.held[run.path]
            state = f"will be the first {run.config.rounds} rounds of {label}"
        else:
            state = far.words(run.config.rounds) + _about(asked, [run])
        lines.append(f"{part.label(run):{width}}  {state}")
    return [*lines, "", _intention(asked)]


def _measured(scale: "Scale") -> str:
    """What was measured before at a scale, by setting and method."""
    cells = [
        f"{setting}/{method} {found.mean:.2f}"
        + ("" if found.sd is None else f" ± {found.sd:.2f}")
        for setting, values in scale.expected.items()
        for method, found in values.items()
    ]
    return ", ".join(cells) or "not run"


def _write(asked: _Asked) -> int:
    """Writes table.csv, table.md and picture.png; prints the table."""
    from fedjax_mrl.cli import console
    from fedjax_mrl.reproducing import parts, writing

    try:
        folder = asked.out / asked.scale.name
        find = parts.Finder(asked.out)  # anew: some are done now
        text = writing.write(
            folder, asked.preset, asked.scale, asked.parts, find, asked.command
        )
    except OSError as error:
        return console.unwritten(f"The table in {asked.out}", error)
    print(text, end="")
    console.show(f"Written to {folder}")
    return 0


reproduce = Command(
    "runs what a published table or figure still lacks, and writes it beside the "
    "paper's numbers",
    _configure,
    _execute,
)
