"""The output of a run: a progress bar on a terminal, plain lines in a pipe."""

import functools
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

# All modules of this package are imported to find the commands: none may be heavy.
if TYPE_CHECKING:
    from rich.table import Table
    from tqdm import auto

    from fedjax_mrl.personalized import Personalized
    from fedjax_mrl.results import Row
    from fedjax_mrl.runs.fairness import Gains
    from fedjax_mrl.runs.recorder import RoundReport
    from fedjax_mrl.simulation.evaluation import Scores
    from fedjax_mrl.simulation.population import Group


def bar(
    label: str, total: int, unit: str, *, start: int = 0, quiet: bool = False
) -> "auto.tqdm":
    """A progress bar with rate and time left; on a terminal only, else it is nothing.

    Args:
        label: stands before the bar.
        total: how many there will be.
        unit: of what.
        start: how many there are already.
        quiet: whether to show none.
    """
    from tqdm import auto

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
        if not self._bar.disable:
            self._bar.set_postfix_str("compiling")  # until the first round is done
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


def _table(title: str | None) -> "Table":
    """An empty table."""
    from rich import box
    from rich.table import Table

    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")


def accuracy_table(
    title: str, groups: "Sequence[Group]", heads: Sequence[str], scores: "Scores"
) -> "Table":
    """A table of mean accuracies over clients, of each architecture and of all.

    Beside them the lowest accuracy of any client and the tenth percentile.
    """
    import numpy as np

    from fedjax_mrl.simulation.evaluation import POINTS

    table = _table(title)
    table.add_column("point")
    table.add_column("head")
    columns = [
        (f"{group.name}\nx{group.clients.size}", group.clients) for group in groups
    ]
    everyone = np.concatenate([group.clients for group in groups])
    columns.append((f"all\nx{everyone.size}", everyone))
    for name in (*(name for name, _ in columns), "worst\nclient", "10th\n%ile"):
        table.add_column(name, justify="right")
    for p, h in np.ndindex(len(POINTS), len(heads)):
        tested = [c[scores.num_test[c] > 0] for _, c in columns]
        cells = [
            f"{scores.accuracy[p, h, c].mean():.4f}" if c.size else "-" for c in tested
        ]
        accuracy = scores.accuracy[p, h, tested[-1]]
        few = [accuracy.min(), np.percentile(accuracy, 10)] if accuracy.size else []
        cells += [f"{value:.4f}" for value in few] or ["-", "-"]
        last = h == len(heads) - 1
        table.add_row(POINTS[p], heads[h], *cells, end_section=last)
    return table


def client_table(
    groups: "Sequence[Group]",
    heads: Sequence[str],
    scores: "Scores",
    gains: "Gains | None" = None,
    called: Sequence[str] = (),
) -> "Table":
    """A table of the accuracy of every client, with its gain over training alone.

    Args:
        groups: the clients by architecture.
        heads: inference modes.
        scores: of all clients.
        gains: over training alone, if that is known.
        called: the names of the clients, if the data name them.
    """
    from fedjax_mrl.simulation.evaluation import POINTS

    table = _table(None)
    columns = [(p, h) for p in range(len(POINTS)) for h in range(len(heads))]
    for name in ("client", *["name"] * bool(called), "architecture", "tests"):
        table.add_column(name, justify="right")
    for p, h in columns:
        table.add_column(f"{POINTS[p]}\n{heads[h]}", justify="right")
    gain = {}
    if gains is not None:
        table.add_column(f"gain in\nround {gains.round}", justify="right")
        gain = dict(zip(gains.clients.tolist(), gains.gain, strict=True))
    names = {int(c): group.name for group in groups for c in group.clients}
    for client in range(scores.num_test.size):
        cells = [f"{scores.accuracy[p, h, client]:.4f}" for p, h in columns]
        tests = str(scores.num_test[client])
        if gains is not None:
            cells.append(f"{gain[client]:+.4f}" if client in gain else "-")
        who = [str(client), *called[client : client + 1], names[client]]
        table.add_row(*who, tests, *cells)
    return table


def cost_table(rows: "Sequence[Row]") -> "Table":
    """A table of what it took to reach accuracies."""
    table = _table("Until all clients' mean accuracy was first")
    simulated = any("simulated_seconds" in row for row in rows)
    names = ["target", "rounds", "MB down\nand up", "TFLOP", "seconds"]
    for name in names + ["simulated\nseconds"] * simulated:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [
            f"{row['target']:g}",
            str(row["rounds"]),
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['flops'] / 1e12:.3f}",
            f"{row['seconds']:.1f}",
        ]
        if simulated:
            cells.append(f"{row['simulated_seconds']:.1f}")
        table.add_row(*cells)
    return table


def tell(*sentences: str) -> None:
    """Tells the user of decisions, beside the results."""
    for sentence in sentences:
        print(f"fedjax-mrl: {sentence}", file=sys.stderr)


def unwritten(what: str, error: Exception) -> int:
    """Tells that tables of runs could not be written; returns the exit status."""
    reason = str(error).rstrip(".")
    tell(
        f"{what} could not be written: {reason}. The runs are kept; solve this, then "
        "repeat the command."
    )
    return 1


def newcomer_table(title: str, found: "Personalized") -> "Table":
    """A table of the accuracies of clients that came later, and of their means."""
    table = _table(title)
    names = ("client", "architecture", "train", "tests", "head")
    numbers = ("before", "after", "alone", "gain")
    for name in (*names, *numbers):
        left = name in ("architecture", "head")
        table.add_column(name, justify="left" if left else "right")
    last = found.heads[-1]

    def cells(row: "Row") -> list[str]:
        values = [row[name] for name in numbers[:-1]]
        shown = ["-" if value is None else f"{value:.4f}" for value in values]
        gain = row["gain"]
        return [*shown, "-" if gain is None else f"{gain:+.4f}"]

    for row in found.rows():
        first = row["head"] == found.heads[0]
        keys = ("client", "architecture", "num_train", "num_test")
        who = [str(row[key]) if first else "" for key in keys]
        table.add_row(*who, row["head"], *cells(row), end_section=row["head"] == last)
    for head in found.heads if len(found.clients) > 1 else ():
        who = ["mean" if head == found.heads[0] else "", "", "", ""]
        table.add_row(*who, head, *cells(found.mean(head)))
    return table


def show(*things: "Table | str") -> None:
    """Prints tables and lines to stdout."""
    from rich.console import Console

    # Wide, because rich cuts what does not fit, numbers included; a terminal wraps
    # long lines by itself. And a path may contain what rich would take for markup.
    console = Console(
        width=1000, soft_wrap=True, highlight=False, markup=False, emoji=False
    )
    for thing in things:
        console.print(thing)
