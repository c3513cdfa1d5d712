"""Several methods and seeds on one data split, from Python and in memory."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedjax_mrl import bar, config, references
from fedjax_mrl.building.values import Values, take
from fedjax_mrl.federation import Federation
from fedjax_mrl.history import History, frame
from fedjax_mrl.protocol import Algorithm
from fedjax_mrl.runs import (
    comparison,
    comparison_tables,
    fairness,
    pictures,
    summary,
)
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.simulation.divergence import Diverged

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_GAINS = ("accuracy", "alone", "gain")


class Comparison:
    """What `compare` found.

    Attributes:
        histories: (algorithm, seed) -> the rounds of that run.
        failed: (algorithm, seed) -> why a run ended before its last round.
    """

    def __init__(self, rows: list[dict[str, Any]], participants: int) -> None:
        self._rows, self._participants = rows, participants
        self.histories: dict[tuple[str, int], History] = {}
        self.failed: dict[tuple[str, int], str] = {}

    def rows(self) -> list[dict[str, Any]]:
        """One row for each run, with the columns of comparison.csv."""
        return list(self._rows)

    def frame(self, table: str = "runs") -> "pandas.DataFrame":
        """A table as a pandas DataFrame.

        Args:
            table: "runs", one row for each run; "gains", see `gains`; or one of
                `History.frame`, of all runs, with their algorithm and seed in front.

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
                {"algorithm": name, "seed": seed, **row}
                for (name, seed), history in self.histories.items()
                for row in history.rows(table)
            ]
        )

    def gains(self) -> list[dict[str, Any]]:
        """Gain of every client over training alone, of each method and seed.

        Returns:
            A row for each client that Standalone has tested too: `algorithm`, `seed`,
            `round` (the last that both evaluated), `client`, `architecture`,
            `accuracy`, `alone` and their difference `gain`. Empty if Standalone is not
            among the methods.

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
        for (name, seed), history in self.histories.items():
            alone = self.histories.get(("standalone", seed))
            if alone is None or name == "standalone":
                continue
            rows = history.rows("clients")
            gains = fairness.gains(rows, alone.rows("clients"))
            if gains is None:
                continue
            kinds = {row["client"]: row["architecture"] for row in rows}
            columns = (gains.clients, gains.accuracy, gains.alone, gains.gain)
            for client, *values in zip(*(c.tolist() for c in columns), strict=True):
                row = {"algorithm": name, "seed": seed, "round": gains.round}
                row |= {"client": client, "architecture": kinds[client]}
                found.append(row | dict(zip(_GAINS, values, strict=True)))
        return found

    def markdown(self) -> str:
        """Mean and spread over seeds, and the paired difference to Standalone."""
        return comparison_tables.to_markdown(self._rows, self._participants)

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
        for (name, _), history in self.histories.items():
            curve = [
                (row["round"], row["mean_accuracy"])
                for row in history.rows("metrics")
                if (row["point"], row["head"]) == ("local", history.heads[0])
            ]
            if curve:
                curves.setdefault(name, []).append(curve)
        return pictures.curves(curves.items())


def compare(
    algorithms: Sequence[str | Callable[..., Algorithm]],
    *,
    seeds: Sequence[int] = (0,),
    progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Trains several methods on the same split with the same seeds.

    The seeds of a method are trained together, in the same compiled programs; each has
    the numbers of its run alone. A run that diverges ends, and does not stop others.

    Args:
        algorithms: names, references, or functions of `fm.Setup`.
        seeds: of initial weights and training.
        progress: whether to show a progress bar; by default on a terminal and in a
            notebook.
        **options: of `Federation`. Those that only some methods have go to these:
            `shared_dim`, and `set={"fedproto.weight": 2}`.

    Returns:
        The table; `frame()`, `plot()` and `markdown()` show it.

    Raises:
        ValueError: for what cannot be run.

    Example:
        >>> import fedjax_mrl as fm
        >>> found = fm.compare(
        ...     ["fedmrl", "standalone"], seeds=(0, 1), models=("mlp",),
        ...     shared_model="mlp", num_clients=5, rounds=1,
        ... )
        >>> found.frame()[["algorithm", "seed", "rounds"]].values.tolist()
        [['fedmrl', 0, 1], ['fedmrl', 1, 1], ['standalone', 0, 1], ['standalone', 1, 1]]
    """
    named, values = take(options)
    names = []
    if isinstance(algorithms, str) or not len(algorithms):
        raise ValueError(
            f"algorithms must be a list of at least one; got {algorithms!r}."
        )
    if not isinstance(seeds, Sequence | range) or not len(seeds):
        raise ValueError(f"seeds must be a list of at least one; got {seeds!r}.")
    for method in algorithms:
        name, own = take({"algorithm": method})
        names.append(name["algorithm"])
        values = values.under(own)
    base = config.build(named)
    runs = comparison.plan(
        base, names, list(seeds), pathlib.Path(), methods=values.algorithms
    )
    found = Comparison([], base.cohort_size)
    with bar.Bar(base.rounds * len(runs), progress) as shown:
        for name in dict.fromkeys(names):
            own_runs = [run for run in runs if run.config.algorithm == name]
            values = _train(found, own_runs, values, shown)
    return found


def _train(
    found: Comparison, runs: Sequence[Run], values: Values, shown: bar.Bar
) -> Values:
    """Trains the seeds of one method; returns the values with data and split."""
    built = Federation(runs[0].config, values=values)
    trials = [built.with_trial(run.config.seed) for run in runs]
    name = references.short(runs[0].config.algorithm)
    problems = _play(trials, shown)
    for federation, problem in zip(trials, problems, strict=True):
        key = name, federation.config.seed
        found.histories[key] = federation.history
        if problem:
            found.failed[key] = problem
        federation.state = None  # only the newest method's states stay in memory
        found._rows.append(_row(federation, name, problem))
    return values._replace(dataset=built.dataset, partition=built.partition)


def _play(trials: Sequence[Federation], shown: bar.Bar) -> list[str | None]:
    """Plays all rounds of some trials together: why each ended early, or None."""
    problems: list[str | None] = [None] * len(trials)
    for federation in trials:
        federation.state = federation.init()
    rounds = trials[0].config.rounds
    for _ in range(rounds):
        states = [
            federation.state if problem is None else None
            for federation, problem in zip(trials, problems, strict=True)
        ]
        started = trials[0].stopwatch.lap()
        together = [federation.trial for federation in trials]
        played = trials[0].play_together(together, states, timed=True)
        for place, (federation, outcome) in enumerate(zip(trials, played, strict=True)):
            if outcome is None:
                continue
            try:
                shown.show(federation.accept(*outcome, rounds, started))
            except Diverged as error:
                problems[place] = str(error)
    return problems


def _row(federation: Federation, name: str, problem: str | None) -> dict[str, Any]:
    """One row of the table; of a run that failed it has no numbers."""
    row: dict[str, Any] = dict.fromkeys(comparison.COLUMNS, "")
    row |= {
        "algorithm": name,
        "seed": federation.config.seed,
        "learning_rate": federation.config.learning_rate,
        "status": problem or "done",
    }
    if problem is None:
        history = federation.history
        whole = summary.summarise(
            algorithm=name,
            dataset=federation.dataset.name,
            rounds=history.rows("rounds"),
            metrics=history.rows("metrics"),
            head=history.heads[0],
        )
        headline: Mapping[str, object] = whole["headline"] or {}
        row |= {key: headline[key] for key in row if key in headline}
        row |= {key: whole[key] for key in row if key in whole and key != "algorithm"}
    return row
