"""The cells of comparison.md, runs that differ in their seed alone, and their names."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl.runs import grid_columns


class Cell(NamedTuple):
    """Runs that differ in their seed alone share a row of comparison.md.

    Attributes:
        algorithm: its short name.
        rate: the learning rate.
        swept: values of the swept options, "" for one that the algorithm lacks.
    """

    algorithm: str
    rate: float
    swept: tuple[object, ...] = ()


Lines = Mapping[Cell, list[dict[str, Any]]]  # rows of comparison.csv by cell


def of(line: Mapping[str, Any], columns: Sequence[str]) -> Cell:
    """The cell of a row of comparison.csv."""
    swept = tuple(line[column] for column in columns)
    return Cell(line["algorithm"], line["learning_rate"], swept)


def label(cell: Cell, columns: Sequence[str], *, several: bool) -> str:
    """A short name of a cell for the legend of a picture."""
    words = [cell.algorithm, *[f"{cell.rate:g}"] * several]
    for column, value in zip(columns, cell.swept, strict=True):
        if value != "":
            words.append(f"{column.rpartition('.')[2]} {shown(value)}")
    return ", ".join(words)


def words(cell: Cell, columns: Sequence[str], *, several: bool) -> str:
    """Names a cell in a sentence."""
    words = [cell.algorithm]
    if several:
        words.append(f"learning rate {cell.rate:g}")
    for column, value in zip(columns, cell.swept, strict=True):
        if value != "":
            words.append(f"{column} {shown(value)}")
    return ", ".join(words)


def shown(value: object) -> str:
    """The value of a swept option as a text; "-" where an algorithm has none."""
    return "-" if value == "" else grid_columns.text(value)


def split(cell: Cell, columns: Sequence[str]) -> tuple[object, ...]:
    """What a cell says of the data split."""
    pairs = zip(columns, cell.swept, strict=True)
    return tuple(value for column, value in pairs if column in grid_columns.SPLIT)


def alone(cell: Cell, lines_of: Lines) -> list[dict[str, Any]]:
    """Standalone's rows at the same options, as far as it has them."""
    for other, found in lines_of.items():
        if other.algorithm == "standalone" and alike(cell, other):
            return found
    return []


def alike(cell: Cell, alone: Cell) -> bool:
    """Whether a cell of Standalone has the options of another, as far as it has any."""
    pairs = zip(cell.swept, alone.swept, strict=True)
    return cell.rate == alone.rate and all(its in ("", own) for own, its in pairs)
