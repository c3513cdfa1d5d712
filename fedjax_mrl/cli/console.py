"""The output of a run: a progress bar on a terminal, plain lines in a pipe."""

import functools
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import auto

# All modules of this package are imported to find the commands: none may be heavy.
if TYPE_CHECKING:
    from fedjax_mrl.runs.recorder import RoundReport
    from fedjax_mrl.simulation.evaluation import Scores
    from fedjax_mrl.simulation.population import Group


def bar(
    label: str, total: int, unit: str, *, start: int = 0, quiet: bool = False
) -> auto.tqdm:
    """A progress bar with rate and time left; on a terminal only, else it is nothing.

    Args:
        label: stands before the bar.
        total: how many there will be.
        unit: of what.
        start: how many there are already.
        quiet: whether to show none.
    """
    shown = not quiet and sys.stdout is not None and sys.stdout.isatty()
    size = shutil.get_terminal_size()
    return auto.tqdm(
        total=total,
        initial=start,
        desc=label,
        unit=unit,
        file=sys.stdout,
        disable=not shown,
        # By itself tqdm shows nothing on a terminal that reports no size.
        ncols=size.columns,
        nrows=size.lines,
    )


class Progress:
    """Reports rounds as they are played. Use as a context manager.

    Args:
        label: names the run, before the bar.
        rounds: how many rounds there will be, of all runs.
        start: rounds already played.
        quiet: whether to print nothing.
    """

    def __init__(
        self, label: str, rounds: int, *, start: int = 0, quiet: bool = False
    ) -> None:
        self._quiet = quiet
        self._bar = bar(label, rounds, "round", start=start, quiet=quiet)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, row: "RoundReport") -> None:
        """Takes the report of a round of the only run."""
        self._tell(row, "")

    def of(self, name: str) -> "Callable[[RoundReport], None]":
        """Returns the reporter of one of several runs, which are counted together."""
        return functools.partial(self._tell, name=f"{name}  ")

    def _tell(self, row: "RoundReport", name: str) -> None:
        if self._quiet:
            return
        accuracy = row["accuracy"]
        shown = "" if accuracy is None else f"{accuracy:.4f}"
        if not self._bar.disable:
            self._bar.set_postfix(loss=f"{row['train_loss']:.4f}", accuracy=shown)
            self._bar.update()
            return
        width = len(str(row["rounds"]))
        print(
            f"{name}round {row['round']:{width}d}/{row['rounds']}"
            f"  loss {row['train_loss']:.4f}"
            + (f"  accuracy {shown}" if shown else "")
            + f"  {row['seconds']:.2f} s",
            flush=True,
        )


def accuracy_table(
    title: str, groups: "Sequence[Group]", heads: Sequence[str], scores: "Scores"
) -> Table:
    """A table of mean accuracies over clients, of each architecture and of all."""
    from fedjax_mrl.simulation.evaluation import POINTS

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("point")
    table.add_column("head")
    columns = [
        (f"{group.name}\nx{group.clients.size}", group.clients) for group in groups
    ]
    everyone = np.concatenate([group.clients for group in groups])
    columns.append((f"all\nx{everyone.size}", everyone))
    for name, _ in columns:
        table.add_column(name, justify="right")
    for p, h in np.ndindex(len(POINTS), len(heads)):
        tested = [c[scores.num_test[c] > 0] for _, c in columns]
        cells = [
            f"{scores.accuracy[p, h, c].mean():.4f}" if c.size else "-" for c in tested
        ]
        last = h == len(heads) - 1
        table.add_row(POINTS[p], heads[h], *cells, end_section=last)
    return table


def client_table(
    groups: "Sequence[Group]", heads: Sequence[str], scores: "Scores"
) -> Table:
    """A table of the accuracy of every client."""
    from fedjax_mrl.simulation.evaluation import POINTS

    table = Table(box=box.SIMPLE_HEAD)
    columns = [(p, h) for p in range(len(POINTS)) for h in range(len(heads))]
    for name in ("client", "architecture", "tests"):
        table.add_column(name, justify="right")
    for p, h in columns:
        table.add_column(f"{POINTS[p]}\n{heads[h]}", justify="right")
    names = {int(c): group.name for group in groups for c in group.clients}
    for client in range(scores.num_test.size):
        cells = [f"{scores.accuracy[p, h, client]:.4f}" for p, h in columns]
        tests = str(scores.num_test[client])
        table.add_row(str(client), names[client], tests, *cells)
    return table


def show(*things: Table | str) -> None:
    """Prints tables and lines to stdout."""
    # Wide, because rich cuts what does not fit, numbers included; a terminal wraps
    # long lines by itself. And a path may contain what rich would take for markup.
    console = Console(
        width=1000, soft_wrap=True, highlight=False, markup=False, emoji=False
    )
    for thing in things:
        console.print(thing)
