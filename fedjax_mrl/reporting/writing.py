"""Makes a report of runs and writes it. `fm.report` and `fedjax-mrl report`."""

import numbers
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict, Unpack

from fedjax_mrl import discovery
from fedjax_mrl._version import __version__
from fedjax_mrl.reporting import (
    accuracy,
    architectures,
    checkpoints,
    clients,
    costs,
    differences,
    drawing,
    finding,
    folder,
    formats,
    grouping,
    listing,
    page,
    record,
    split,
)
from fedjax_mrl.reporting.content import Chapter, Note, Picture, Section, Table
from fedjax_mrl.reporting.error import ReportError
from fedjax_mrl.reporting.grouping import Setting
from fedjax_mrl.runs import summary

_TITLE = "Report of federated runs"
_INTRODUCTION = (
    f"Made by fedjax_mrl {__version__} from the tables and checkpoints of the runs "
    "that each chapter lists at its end. A chapter is one setting: one split of the "
    "data and one number of rounds; only within it are methods compared. Accuracies "
    "are test accuracies of the clients, in per cent, each client with its own network "
    "on its own test examples before aggregation (point “local”), in the first way to "
    "answer that its method has. All clients count the same.",
    "A click on the title of a column sorts its table. Every table is also a csv, "
    "Markdown and LaTeX file in the folder “tables”, every figure a png and svg in "
    "“figures”.",
)


class Options(TypedDict, total=False):
    """What a report is to have.

    Attributes:
        data_dir: where the data lie now; by default where the runs found them.
        client: whose representations are drawn; by default the first that has test
            examples.
        targets: accuracies whose costs are listed; by default some that were reached.
        use_checkpoints: whether trained networks are loaded, which takes longest; by
            default they are.
    """

    data_dir: str | None
    client: int | None
    targets: Sequence[float]
    use_checkpoints: bool


class Written(NamedTuple):
    """What became of a report.

    Attributes:
        path: its folder.
        files: names in it.
        left_out: runs that are not in it, and why.
        damaged: runs in it of which a table is damaged, and how.
    """

    path: pathlib.Path
    files: tuple[str, ...]
    left_out: Mapping[pathlib.Path, str]
    damaged: Mapping[pathlib.Path, str]

    @property
    def page(self) -> pathlib.Path:
        """The page to read."""
        return self.path / folder.PAGE


def report(
    runs: str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    overwrite: bool = False,
    **options: Unpack[Options],
) -> Written:
    """Writes a report on runs: tables, figures, and one page that has all of them.

    Args:
        runs: run directories, comparisons, and folders of these. They may still be
            going on; what is there is reported.
        out: a new or empty folder. It appears complete or not at all.
        overwrite: replace the report that is there; other files in the folder stay.
        **options: `data_dir`, where the data lie now; `client`, whose representations
            are drawn; `targets`, accuracies whose costs are listed, as (0.5, 0.6); and
            `use_checkpoints=False` to load no networks, which takes longest.

    Returns:
        What was written, and which runs were left out and why.

    Raises:
        ReportError: if there is no run, or the folder holds something else. It is a
            ValueError, as is `PathError` for a path that is none.
        OSError: if the folder cannot be written; then nothing is.
    """
    given = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    _check(options)
    path = folder.check(out, overwrite=overwrite)
    found, left_out = [], {}
    for each in finding.find(given):
        try:
            found.append(record.read(each))
        except ReportError as error:
            left_out[each] = str(error)
    if not found:
        reasons = "; ".join(f"{where}: {why}" for where, why in left_out.items())
        raise ReportError(
            f"There is no run to report on: {reasons or 'none was given'}."
        )
    _check_client(options.get("client"), found)
    settings = grouping.group(found)
    damaged = {run.path: "; ".join(run.damage) for run in found if run.damage}
    notes = [f"Left out: {where}: {why}." for where, why in left_out.items()]
    notes += [f"Damaged: {where}: {why}." for where, why in damaged.items()]
    files = _files([_chapter(setting, options) for setting in settings], notes)
    folder.write(path, files, overwrite=overwrite)
    return Written(path, (*files, folder.MARK), left_out, damaged)


def _check(options: Options) -> None:
    known = list(Options.__annotations__)
    for name in options:
        if name not in known:
            raise ReportError(discovery.unknown("option of a report", name, known))
    targets = options.get("targets", ())
    if not isinstance(targets, Iterable):
        raise ReportError(
            f"targets must be a list of accuracies, as (0.5, 0.6); got {targets!r}."
        )
    try:
        summary.require_targets(targets)
    except ValueError as error:
        raise ReportError(str(error)) from None
    client = options.get("client")
    whole = isinstance(client, numbers.Integral) and not isinstance(client, bool)
    if client is not None and not (whole and client >= 0):
        raise ReportError(f"A client is a number from 0; got {client!r}.")


def _check_client(client: int | None, runs: Iterable[record.Run]) -> None:
    """Refuses a client that no run has."""
    number = max(run.number_of_clients for run in runs)
    if client is not None and client >= number:
        raise ReportError(
            f"There is no client {client} in these runs; clients are numbered from 0 "
            f"to {number - 1}."
        )


def _chapter(setting: Setting, options: Options) -> Chapter:
    sections: list[Section] = [
        accuracy.section(setting),
        differences.section(setting),
        clients.section(setting),
        architectures.section(setting),
        costs.section(setting, options.get("targets", ())),
        split.section(setting, options.get("data_dir")),
    ]
    if options.get("use_checkpoints", True):
        where = options.get("data_dir"), options.get("client")
        sections += checkpoints.sections(setting, *where)
    sections.append(listing.section(setting))
    return Chapter(setting.title, setting.slug, sections)


def _files(chapters: Sequence[Chapter], notes: Sequence[str]) -> dict[str, bytes]:
    """All files of the report, name to content; the notes are said at its top."""
    several = len(chapters) > 1
    chapters = [_named(chapter) if several else chapter for chapter in chapters]
    files: dict[str, bytes] = {}
    drawn: dict[str, bytes] = {}
    for block in _blocks(chapters):
        if isinstance(block, Picture):
            drawn[block.name] = drawing.svg(block.figure)
            files[f"figures/{block.name}.svg"] = drawn[block.name]
            files[f"figures/{block.name}.png"] = drawing.png(block.figure)
        else:
            for end, write in (
                ("csv", formats.to_csv),
                ("md", formats.to_markdown),
                ("tex", formats.to_latex),
            ):
                files[f"tables/{block.name}.{end}"] = write(block).encode()
    html = page.render(_TITLE, (*_INTRODUCTION, *notes), chapters, drawn)
    return {folder.PAGE: html.encode(), **files}


def _blocks(chapters: Iterable[Chapter]) -> Iterator[Table | Picture]:
    """All tables and figures, those for files alone too."""
    for chapter in chapters:
        for section in chapter.sections:
            yield from (b for b in section.blocks if isinstance(b, Table | Picture))
            yield from section.files


def _named(chapter: Chapter) -> Chapter:
    """The chapter with its name before those of its files."""
    longer = lambda name: f"{chapter.slug}-{name}"
    sections = [
        section._replace(
            blocks=[
                block
                if isinstance(block, Note)
                else block._replace(name=longer(block.name))
                for block in section.blocks
            ],
            files=[t._replace(name=longer(t.name)) for t in section.files],
        )
        for section in chapter.sections
    ]
    return chapter._replace(sections=sections)
