"""What a comparison of several runs found: rows, histories, gains, curves."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedjax_mrl.history import History, frame
from fedjax_mrl.runs import (
    cells,
    comparison_gains,
    comparison_rows,
    comparison_tables,
    pictures,
    private_runs,
    summary,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from fedjax_mrl.federation import Federation

_GAINS = ("accuracy", "alone", "gain")


class Comparison:
    """What `compare` found.

    Attributes:
        histories: (algorithm, seed) -> the rounds of that run; with a grid
            (algorithm, seed, value, ...), one value for each of `options`.
        failed: likewise -> why a run ended before its last round.
        options: what was swept, as columns of the tables.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self.options = list(options)
        self._rows: list[dict[str, Any]] = []
        self._participants: list[int] = []
        self._private: list[private_runs.Found] = []
        self.histories: dict[tuple[object, ...], History] = {}
        self.failed: dict[tuple[object, ...], str] = {}

    def rows(self) -> list[dict[str, Any]]:
        """One row for each run, with the columns of comparison.csv."""
        return list(self._rows)

    def frame(self, table: str = "runs") -> "pandas.DataFrame":
        """A table as a pandas DataFrame.

        Args:
            table: "runs", one row for each run; "gains", see `gains`; or one of
                `History.frame`, of all runs, with their algorithm and seed in front,
                and what was swept.

        Raises:
            ValueError: for another table.
            ImportError: without pandas.
        """
        if table == "runs":
            return frame(self._rows)
        if table == "gains":
            return frame(self.gains())
        return frame(
            [
                {**dict(zip(self._names, key, strict=True)), **row}
                for key, history in self.histories.items()
                for row in history.rows(table)
            ]
        )

    def gains(self) -> list[dict[str, Any]]:
        """Gain of every client over training alone, of each method and seed.

        Returns:
            A row for each client that Standalone has tested too: `algorithm`, `seed`,
            what was swept, `round` (the last that both evaluated), `client`,
            `architecture`, `accuracy`, `alone` and their difference `gain`. Empty if
            Standalone is not among the methods.

        Example:
            >>> import fedjax_mrl as fm
            >>> found = fm.compare(
            ...     ["fml", "standalone"], models=("mlp",), shared_model="mlp",
            ...     num_clients=5, rounds=1,
            ... )
            >>> [row["client"] for row in found.gains()]
            [0, 1, 2, 3, 4]
        """
        found: list[dict[str, Any]] = []
        for place, gains in comparison_gains.each(
            self._rows, self._clients(), self._columns
        ):
            key, history = list(self.histories.items())[place]
            kinds = {c["client"]: c["architecture"] for c in history.rows("clients")}
            columns = (gains.clients, gains.accuracy, gains.alone, gains.gain)
            for client, *values in zip(*(c.tolist() for c in columns), strict=True):
                row = dict(zip(self._names, key, strict=True))
                row |= {"round": gains.round, "client": client}
                row |= {"architecture": kinds[client]}
                found.append(row | dict(zip(_GAINS, values, strict=True)))
        return found

    def _clients(self) -> list[comparison_gains.Read]:
        """For each row what returns its rows of clients.csv."""
        return [
            functools.partial(history.rows, "clients")
            for history in self.histories.values()
        ]

    def finish(self) -> None:
        """Adds to the rows what follows from several of them."""
        comparison_gains.add(self._rows, self._clients(), self._columns)

    def markdown(self) -> str:
        """Mean and spread over seeds, and the paired difference to Standalone."""
        table = comparison_tables.to_markdown(
            self._rows, self._participants, self._columns
        )
        return private_runs.below(table, self._private)

    @property
    def _names(self) -> list[str]:
        return ["algorithm", "seed", *self.options]

    @property
    def _columns(self) -> list[str]:
        """The columns of swept options that tables do not have anyway."""
        return [name for name in self.options if name != "learning_rate"]

    def __repr__(self) -> str:
        return self.markdown()

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def plot(self) -> "Figure":
        """Draws the headline accuracy over rounds: mean and range over seeds.

        Returns:
            A matplotlib figure, which a notebook shows; `savefig(path)` writes it.
        """
        curves: dict[str, list[list[tuple[int, float]]]] = {}
        for row, history in zip(self._rows, self.histories.values(), strict=True):
            curve = summary.headline_curve(history.rows("metrics"), history.heads[0])
            if curve:
                cell = cells.of(row, self._columns)
                several = "learning_rate" in self.options
                name = cells.label(cell, self._columns, several=several)
                curves.setdefault(name, []).append(curve)
        return pictures.curves(curves.items())

    def add(self, federation: "Federation", problem: str | None) -> None:
        """Takes in a run that ended, and why if it ended early."""
        own = comparison_rows.identity(federation.config, self._columns)
        key = tuple(own[name] for name in self._names)
        self.histories[key] = federation.history
        if problem:
            self.failed[key] = problem
        self._rows.append(_row(federation, own, problem, self._columns))
        self._participants.append(federation.config.cohort_size)
        if federation.privacy is not None and not problem:
            spent = federation.privacy.spent(federation.config.rounds)
            self._private.append((own["algorithm"], spent))


def _row(
    federation: "Federation",
    own: Mapping[str, Any],
    problem: str | None,
    columns: Sequence[str],
) -> dict[str, Any]:
    """One row of the table; of a run that failed it has no numbers."""
    row: dict[str, Any] = dict.fromkeys(comparison_rows.with_columns(columns), "")
    row |= {**own, "status": problem or "done"}
    if problem is None:
        whole = federation.summary()
        headline: Mapping[str, object] = whole["headline"] or {}
        row |= {key: headline[key] for key in row if key in headline}
        row |= {key: whole[key] for key in row if key in whole and key != "algorithm"}
    return row
