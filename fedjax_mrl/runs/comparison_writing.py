"""Writes the tables of a comparison and its picture."""

import pathlib
from collections.abc import Iterator, Sequence

from fedjax_mrl.runs import (
    cells,
    comparison_rows,
    comparison_tables,
    course,
    pictures,
    private_runs,
)
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.runs.directory import RunDirectory


def write(directory: pathlib.Path, runs: Sequence[Run], rows: list[dict]) -> str:
    """Writes comparison.csv, comparison.md and curves.png; returns the table.

    Args:
        directory: of the comparison.
        runs: all, in the order of the table.
        rows: of comparison.csv, one for each run.

    Raises:
        OSError: if they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)  # every run may have been refused
    folder = RunDirectory(directory)
    columns = comparison_rows.swept(runs)
    clients = [run.config.cohort_size for run in runs]
    private = [
        (line["algorithm"], private_runs.read(run.path))
        for run, line in zip(runs, rows, strict=True)
        if run.config.privacy is not None
    ]
    table = private_runs.below(
        comparison_tables.to_markdown(rows, clients, columns),
        [(name, found) for name, found in private if found],
    )
    folder.lock(wait=True)  # another comparison of the folder may end at the same time
    try:
        folder.write_text("comparison.csv", comparison_tables.to_csv(rows, columns))
        folder.write_text("comparison.md", table)
        draw(directory / "curves.png", runs, columns)
    finally:
        folder.unlock()
    return table


def draw(path: pathlib.Path, runs: Sequence[Run], columns: Sequence[str] = ()) -> None:
    """curves.png: headline accuracy over rounds, mean and range over seeds."""
    pictures.curves(_curves(runs, columns)).savefig(path)


def _curves(
    runs: Sequence[Run], columns: Sequence[str]
) -> Iterator[tuple[str, list[list[tuple[int, float]]]]]:
    done = [run for run in runs if course.finished(run)]
    of = lambda run: cells.of(comparison_rows.identity(run.config, columns), columns)
    several = len({run.config.learning_rate for run in done}) > 1
    for cell in dict.fromkeys(map(of, done)):
        curves = [comparison_rows.read_curve(run) for run in done if of(run) == cell]
        if all(curves):
            yield cells.label(cell, columns, several=several), curves
