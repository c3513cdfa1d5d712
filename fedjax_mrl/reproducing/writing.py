"""Writes the table of a preset, and its picture."""

import pathlib
from collections.abc import Callable, Sequence

from fedjax_mrl.reproducing import drawing, table
from fedjax_mrl.reproducing.parts import Part, Progress
from fedjax_mrl.reproducing.preset import Preset, Scale
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.runs.directory import RunDirectory


def write(
    folder: pathlib.Path,
    preset: Preset,
    scale: Scale,
    planned: Sequence[Part],
    progress: Callable[[Run], Progress],
    command: str,
) -> str:
    """Writes table.csv, table.md and picture.png into a folder; returns the table.

    Raises:
        OSError: if they cannot be written.
    """
    found = table.cells(preset, scale, planned, progress)
    rows = table.rows(preset, scale, found)
    text = table.to_markdown(preset, scale, rows, command)
    folder.mkdir(parents=True, exist_ok=True)
    files = RunDirectory(folder)
    figure = drawing.draw(preset, found)
    files.lock(wait=True)  # another command of the preset may end at the same time
    try:
        files.write_text("table.csv", table.to_csv(rows))
        files.write_text("table.md", text)
        if figure is not None:
            figure.savefig(folder / "picture.png")
    finally:
        files.unlock()
    return text
