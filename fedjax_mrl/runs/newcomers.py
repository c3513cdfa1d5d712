"""The table of clients that came to a run after its rounds."""

import csv
import io
import pathlib
import re
from collections.abc import Mapping, Sequence

from fedjax_mrl import whole_file
from fedjax_mrl.runs.error import RunDirectoryError
from fedjax_mrl.runs.tables import Cell

# By what was done with the shared part.
NAMES = {mode: f"personalized-{mode}.csv" for mode in ("fine-tuned", "frozen")}
OTHERS = [f"personalized-{mode}-*.csv" for mode in NAMES]  # of `name`
_LONGEST = 60  # letters of a file's name that are taken over


def name(shared: str, data: str | None) -> str:
    """The name of the table in a run directory, another for each newcomer's file.

    Args:
        shared: what is done with the shared part.
        data: the file of a client from outside; None for clients that were held out.

    Example:
        >>> name("frozen", "new/zoë.npz")
        'personalized-frozen-zoë.csv'
    """
    if data is None:
        return NAMES[shared]
    return f"personalized-{shared}-{stem(data)}.csv"


def stem(data: str) -> str:
    """What a newcomer's file is called in names of other files."""
    return re.sub(r"[^\w.+-]", "_", pathlib.PurePath(data).stem)[:_LONGEST]


def check(path: pathlib.Path, *, overwrite: bool) -> None:
    """Refuses a place where the table could not be written; touches nothing.

    Raises:
        RunDirectoryError: if something is there and is not to be replaced, or the
            folder is missing.
    """
    whole_file.check(path, "--out", RunDirectoryError, overwrite=overwrite)


def write(
    path: pathlib.Path, rows: Sequence[Mapping[str, Cell]], *, overwrite: bool
) -> None:
    """Writes the table as a whole, or leaves what was there.

    Args:
        path: of the table.
        rows: with equal keys, at least one.
        overwrite: replace what is there.

    Raises:
        RunDirectoryError: as `check`.
        OSError: if it cannot be written.
    """
    check(path, overwrite=overwrite)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: _cell(value) for name, value in row.items()} for row in rows
    )
    whole_file.write(path, text.getvalue().encode(), alone=False)


def _cell(value: Cell) -> Cell:
    return f"{value:.6g}" if isinstance(value, float) else value
