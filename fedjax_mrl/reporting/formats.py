"""Writes tables as csv, Markdown and LaTeX, and their cells as texts."""

import csv
import io
import re
from collections.abc import Callable
from typing import Any

from fedjax_mrl.reporting.content import Cell, Column, Table

NOTHING = "\u2013"  # an empty cell


def _spread(value: Any) -> str:
    mean, deviation = value
    text = f"{100 * mean:.2f}"
    return text if deviation is None else f"{text} ± {100 * deviation:.2f}"


def _probability(value: Any) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# How cells are written for readers: accuracies are fractions, and shown in per cent.
KINDS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "rounds": str,  # one, or several as in 3 to 5
    "whole": lambda value: f"{value:,.0f}".replace(",", "\u202f"),
    "decimal": lambda value: f"{value:,.3g}" if value < 100 else f"{value:,.0f}",
    "rate": lambda value: f"{100 * value:g}",
    "percent": lambda value: f"{100 * value:.2f}",
    "points": lambda value: f"{100 * value:+.2f}",
    "percents": lambda pair: f"[{100 * pair[0]:.2f}, {100 * pair[1]:.2f}]",
    "range": lambda pair: f"[{100 * pair[0]:+.2f}, {100 * pair[1]:+.2f}]",
    "spread": _spread,
    "probability": _probability,
}
# Kinds with two values, and what their second (and first) column is called in csv.
_TWO = {
    "percents": ("_low", "_high"),
    "range": ("_low", "_high"),
    "spread": ("", "_sd"),
}
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    NOTHING: "--",
    "\u202f": r"\,",
}


def numeric(column: Column) -> bool:
    """Whether a column holds numbers; a text among them says why there is none."""
    return column.kind not in ("text", "rounds")


def to_the_right(column: Column) -> bool:
    """Whether the cells of a column stand to the right."""
    return column.kind != "text"


def text(cell: Cell, column: Column) -> str:
    """A cell as a reader sees it."""
    if cell is None:
        return NOTHING
    return cell if isinstance(cell, str) else KINDS[column.kind](cell)


def order(cell: Cell) -> float | None:
    """The number that a cell is sorted by; None of a text or an empty cell."""
    first = cell[0] if isinstance(cell, tuple) else cell
    return None if first is None or isinstance(first, str) else float(first)


def to_csv(table: Table) -> str:
    """The table with its numbers as they are: fractions, bytes; empty where none is."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    header: list[str] = []
    for column in table.columns:
        header += [column.key + end for end in _TWO.get(column.kind, ("",))]
    lines.writerow(header)
    for row in table.rows:
        cells: list[str] = []
        for cell, column in zip(row, table.columns, strict=True):
            cells += _plain(cell, column)
        lines.writerow(cells)
    return written.getvalue()


def _plain(cell: Cell, column: Column) -> list[str]:
    """The cells of a csv file that one cell becomes."""
    width = len(_TWO.get(column.kind, ("",)))
    if cell is None or (numeric(column) and isinstance(cell, str)):
        return [""] * width
    values = cell if isinstance(cell, tuple) else (cell,)
    number = lambda value: f"{value:.6g}" if isinstance(value, float) else str(value)
    return ["" if value is None else number(value) for value in values]


def to_markdown(table: Table) -> str:
    """The table in Markdown, below its caption."""
    titles = [_in_bars(column.title) for column in table.columns]
    rules = ["---:" if to_the_right(column) else "---" for column in table.columns]
    lines = [titles, rules]
    for row in table.rows:
        pairs = zip(row, table.columns, strict=True)
        lines.append([_in_bars(text(cell, column)) for cell, column in pairs])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    reading = " ".join(table.reading)
    return f"**{table.caption}**\n\n{body}\n\n{reading}\n"


def _in_bars(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")


def to_latex(table: Table) -> str:
    """The table in LaTeX, which needs the package booktabs."""
    kinds = "".join("r" if to_the_right(column) else "l" for column in table.columns)
    line = lambda words: "    " + " & ".join(map(latex, words)) + r" \\"
    rows = [
        line([text(cell, c) for cell, c in zip(row, table.columns, strict=True)])
        for row in table.rows
    ]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{latex(table.caption)}}}",
        f"  \\label{{tab:{table.name}}}",
        f"  \\begin{{tabular}}{{{kinds}}}",
        r"    \toprule",
        line([column.title for column in table.columns]),
        r"    \midrule",
        *rows,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex(words: str) -> str:
    """A text with the characters escaped that LaTeX would take for commands.

    Example:
        >>> latex("50 % of c_1")
        '50 \\\\% of c\\\\_1'
    """
    return re.sub("|".join(map(re.escape, _LATEX)), lambda m: _LATEX[m[0]], words)
