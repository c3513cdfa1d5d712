"""The rounds that a federation played, as tables and pictures for a notebook."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedjax_mrl import discovery, missing, results
from fedjax_mrl.results import Result, Row, Seconds
from fedjax_mrl.runs import pictures
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import State

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

TABLES = ("metrics", "rounds", "clients")


def frame(rows: Sequence[Row]) -> "pandas.DataFrame":
    """Rows of a table as a pandas DataFrame.

    Raises:
        ImportError: without pandas; says how to get it.
    """
    try:
        import pandas
    except ImportError as error:
        subject = "A frame, unlike the list of rows(),"
        raise ImportError(missing.sentence(subject, "pandas")) from error
    return pandas.DataFrame(rows)


class History:
    """What each round reported: losses, traffic, accuracies. States are not kept.

    Args:
        groups: the clients by architecture.
        heads: the inference modes; the first is the headline.
        num_train: examples that each client trains on [N].
        flops: -> FLOPs of every client's visit [N]; asked when they are needed.

    Example:
        >>> import fedjax_mrl as fm
        >>> federation = fm.Federation(
        ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=2
        ... )
        >>> history = federation.fit()
        >>> history.frame().columns.tolist()[:4]
        ['round', 'point', 'head', 'clients']
        >>> history.frame("rounds")["round"].tolist()
        [1, 2]
    """

    def __init__(
        self,
        groups: list[Group],
        heads: tuple[str, ...],
        num_train: list[int],
        flops: Callable[[], np.ndarray],
    ) -> None:
        self.heads = heads
        self._architectures = results.architectures(groups)
        self._num_train = num_train
        self._flops = flops
        self._rounds: list[tuple[Result, Seconds]] = []
        self._earlier: dict[str, list[Row]] = {table: [] for table in TABLES}

    def __len__(self) -> int:
        return len(self._earlier["rounds"]) + len(self._rounds)

    def __iter__(self) -> Iterator[Result]:
        """The rounds that were played here, oldest first; their states are gone."""
        return (result for result, _ in self._rounds)

    def __repr__(self) -> str:
        if not len(self):
            return "History of no round"
        rows = self.rows("metrics")
        text = f"History of {len(self)} rounds, up to round {self.last_round}"
        if not rows:
            return text
        last = next(row for row in rows if row["round"] == rows[-1]["round"])
        return (
            f"{text}; mean accuracy {last['mean_accuracy']:.4f} "
            f"({last['point']}, {last['head']}) after round {last['round']}"
        )

    @property
    def last_round(self) -> int:
        """The number of the last round; 0 before the first."""
        if self._rounds:
            return self._rounds[-1][0].state.round
        return max((row["round"] for row in self._earlier["rounds"]), default=0)

    def begin_with(self, tables: Mapping[str, list[Row]]) -> None:
        """Takes over rounds that were played elsewhere, as rows of the three tables."""
        self._earlier = {table: list(tables[table]) for table in TABLES}

    def append(self, result: Result, seconds: Seconds) -> None:
        """Adds a round; forgets rounds that it replaces, as of a loop begun anew."""
        number = int(result.state.round)
        for rows in self._earlier.values():
            rows[:] = [row for row in rows if row["round"] < number]
        self._rounds = [old for old in self._rounds if old[0].state.round < number]
        past = State(number, None, {})  # without arrays, which may go
        self._rounds.append((result._replace(state=past), seconds))

    def rows(self, table: str = "metrics") -> list[Row]:
        """The rows of a table, with the columns of the csv file of that name.

        Args:
            table: "metrics", one row for each evaluated round, point and head;
                "rounds", one for each round; "clients", one for each evaluated round,
                client, point and head.

        Raises:
            ValueError: for another table.
        """
        if table not in TABLES:
            raise ValueError(discovery.unknown("table", table, TABLES))
        found: list[Row] = list(self._earlier[table])
        flops = self._flops() if table == "rounds" and self._rounds else None
        for result, seconds in self._rounds:
            if flops is not None:
                found.append(results.round_row(result, flops, seconds))
            elif table == "metrics":
                found += results.metric_rows(result, self.heads)
            else:
                found += results.client_rows(
                    result, self.heads, self._architectures, self._num_train
                )
        return found

    def newest(self) -> tuple[Row, list[Row]]:
        """The newest round's row of "rounds", and its rows of "metrics"."""
        result, seconds = self._rounds[-1]
        row = results.round_row(result, self._flops(), seconds)
        return row, results.metric_rows(result, self.heads)

    def frame(self, table: str = "metrics") -> "pandas.DataFrame":
        """A table as a pandas DataFrame; see `rows`.

        Raises:
            ValueError: for another table.
            ImportError: without pandas; says how to get it.
        """
        return frame(self.rows(table))

    def plot(self, *, point: str = "local") -> "Figure":
        """Draws the mean accuracy of all clients by round, a curve for each head.

        Args:
            point: "local", each client right after its own training; "global", with the
                newest aggregate.

        Returns:
            A matplotlib figure, which a notebook shows; `savefig(path)` writes it.

        Raises:
            ValueError: if no round was evaluated, or there is no such point.

        Example:
            >>> import fedjax_mrl as fm
            >>> federation = fm.Federation(
            ...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=2
            ... )
            >>> [axes] = federation.fit().plot().axes
            >>> axes.get_xlabel(), len(axes.lines)
            ('round', 4)
        """
        rows = [row for row in self.rows("metrics") if row["point"] == point]
        if not rows:
            raise ValueError(
                f"There is no evaluated round to draw at point {point!r}; play some "
                "with fit(), and give local or global."
            )
        figure = pictures.empty(6, 4)
        axes: Any = figure.add_subplot()
        for head in self.heads:
            own = [row for row in rows if row["head"] == head]
            axes.plot(
                [row["round"] for row in own],
                [row["mean_accuracy"] for row in own],
                label=head,
                marker="o" if len(own) < 30 else None,
                markersize=3,
            )
        axes.set(xlabel="round", ylabel="mean test accuracy of clients")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
        return figure
