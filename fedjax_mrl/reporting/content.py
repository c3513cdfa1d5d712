"""What a report is made of: sections of tables, figures and paragraphs.

All of it is values; `formats` writes tables, `drawing` figures, and `page` the whole.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A number, a text, an interval or mean and deviation; None where there is nothing.
Cell = float | int | str | tuple[float, float | None] | None


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: its name in csv files.
        title: its name for readers.
        kind: how its cells are written, one of `formats.KINDS`. A text in a column of
            numbers says why there is none.
    """

    key: str
    title: str
    kind: str = "text"


class Reading(NamedTuple):
    """What stands beside a table or figure, in plain English, a sentence or more each.

    Attributes:
        shown: what it shows.
        how: how it is read.
        limits: what it does not say.
    """

    shown: str
    how: str
    limits: str


class Table(NamedTuple):
    """A table; `name` is that of its files."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[Cell, ...]]
    reading: Reading


class Picture(NamedTuple):
    """A figure.

    Attributes:
        name: of its files.
        caption: its title.
        alt: what it shows, with the main numbers, for those who do not see it.
        figure: the drawing.
        reading: what stands beside it.
    """

    name: str
    caption: str
    alt: str
    figure: "Figure"
    reading: Reading


class Note(NamedTuple):
    """A paragraph, as of what is missing and why."""

    text: str


class Section(NamedTuple):
    """A part of the report with a title of its own.

    Attributes:
        title: of it.
        blocks: what is on the page, in order.
        files: tables that are too long for the page and are files only.
    """

    title: str
    blocks: Sequence[Table | Picture | Note]
    files: Sequence[Table] = ()


class Chapter(NamedTuple):
    """All that the report says of one setting; `slug` names its files."""

    title: str
    slug: str
    sections: Sequence[Section]
