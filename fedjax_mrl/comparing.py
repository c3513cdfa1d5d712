"""Several methods, seeds and settings, from Python and in memory."""

import contextlib
import pathlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fedjax_mrl import bar, config
from fedjax_mrl.building import ahead, from_config
from fedjax_mrl.building.values import Values, take
from fedjax_mrl.compared import Comparison
from fedjax_mrl.federation import Federation
from fedjax_mrl.protocol import Algorithm
from fedjax_mrl.runs import comparison, grid_columns
from fedjax_mrl.runs import grid as grids
from fedjax_mrl.runs import writers as runs_writers
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.runs.writers import Writer
from fedjax_mrl.simulation.divergence import Diverged


def compare(
    algorithms: Sequence[str | Callable[..., Algorithm]],
    *,
    seeds: Sequence[int] = (0,),
    grid: Mapping[str, Sequence[object]] | None = None,
    progress: bool | None = None,
    writers: Callable[[str], Sequence[Writer]] | None = None,
    **options: Any,
) -> Comparison:
    """Trains several methods on the same split with the same seeds.

    The seeds of a method are trained together, in the same compiled programs; each has
    the numbers of its run alone. A run that diverges ends, and does not stop others.

    Args:
        algorithms: names, references, or functions of `fm.Setup`.
        seeds: of initial weights and training.
        grid: options to sweep and their values, of which all combinations are played:
            any option of `Federation` but those of the data set and of the number of
            rounds, and hyper-parameters as `set` names them. Learning rates are
            trained together as seeds are.
        progress: whether to show a progress bar; by default on a terminal and in a
            notebook.
        writers: the name of a run, as "fedmrl-0", -> what is told of its rounds, see
            `fm.Writer`; called once for each run before the first is trained.
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
    if not isinstance(seeds, Sequence | range) or not len(seeds):
        raise ValueError(f"seeds must be a list of at least one; got {seeds!r}.")
    named, values = take(options)
    names, values = _methods(algorithms, values)
    base = config.build(named)
    grid, values = _read(grid or {}, names, values)
    seeds, methods = list(grid.pop("seed", seeds)), values.algorithms
    runs = comparison.plan(base, names, seeds, pathlib.Path(), grid, methods=methods)
    values = _foreseen(base, runs, grid, values)
    found = Comparison(_columns(grid))
    told = {run: _told(writers, run.path.name) for run in runs}
    with bar.Bar(base.rounds * len(runs), progress) as shown:
        for one_program in comparison.of_one_program(runs):
            own = {run: told[run] for run in one_program}
            values = _train(found, own, values, shown)
    found.finish()
    return found


def _columns(grid: grids.Grid) -> list[str]:
    """What is swept, as columns of the tables."""
    return [name for name in grid if name == "learning_rate"] + grid_columns.of(grid)


def _foreseen(
    base: config.RunConfig,
    runs: Sequence[Run],
    grid: Mapping[str, Any],
    values: Values,
) -> Values:
    """Refuses what could only fail later; returns the values with the data."""
    if grid:
        ahead.require_known((run.config for run in runs), values)
    data = from_config.data(base, values.dataset)
    grids.require_one_test_part(grid, drawn=data.test_drawn)
    values = values._replace(dataset=data)
    ahead.require_built((run.config for run in runs), data, values)
    ahead.require_a_split((run.config for run in runs), data, values)
    return values


def _methods(
    algorithms: Sequence[str | Callable[..., Algorithm]], values: Values
) -> tuple[list[str], Values]:
    """The names of the methods, and the values with those that are functions."""
    listed = isinstance(algorithms, Collection) and not isinstance(algorithms, str)
    if not listed or not len(algorithms):
        raise ValueError(
            f"algorithms must be a list of at least one; got {algorithms!r}."
        )
    names = []
    for method in algorithms:
        name, own = take({"algorithm": method})
        names.append(name["algorithm"])
        values = values.under(own)
    return names, values


def _read(
    grid: Mapping[str, Sequence[object]], names: Sequence[str], values: Values
) -> tuple[dict[str, Any], Values]:
    """The grid with names for values, as of own networks, and the values."""
    named = dict(grid)
    for option in ("models", "shared_model"):
        listed = named.get(option)
        if isinstance(listed, Sequence) and not isinstance(listed, str):
            names_of: list[object] = []
            for value in listed:
                taken, own = take({option: value})
                names_of.append(taken[option])
                values = values.under(own)
            named[option] = names_of
    split = [
        option for option in named if option.replace("-", "_") in grid_columns.SPLIT
    ]
    if split and values.partition is not None:
        raise ValueError(
            f"A split that is given is the same for all; leave {split[0]} out of grid, "
            "or name the partition as a text."
        )
    hyper = comparison.hyperparameters(names, values.algorithms)
    return grids.check(named, hyper), values


def _told(
    writers: Callable[[str], Sequence[Writer]] | None, name: str
) -> runs_writers.Writers:
    """The writers of one run."""
    if writers is None:
        return runs_writers.Writers()
    made = writers(name) if callable(writers) else None
    if not isinstance(made, Sequence):
        raise ValueError(
            "writers must be a function from the name of a run to a list of writers, "
            "as lambda name: [fm.TensorBoard('runs/' + name)], since every run has its "
            f"own; got {writers!r}."
        )
    return runs_writers.Writers(made, lambda text: warnings.warn(text, stacklevel=5))


def _train(
    found: Comparison,
    runs: Mapping[Run, runs_writers.Writers],
    values: Values,
    shown: bar.Bar,
) -> Values:
    """Trains the trials of one program; returns the values with the data."""
    built = Federation(next(iter(runs)).config, values=values)
    trials = [
        built.with_trial(run.config.seed, run.config.learning_rate) for run in runs
    ]
    with contextlib.ExitStack() as stack:
        for (run, told), federation in zip(runs.items(), trials, strict=True):
            stack.enter_context(told)
            if told:
                told.begin(runs_writers.start(federation, 0, run.path.name))
        problems = _play(trials, shown, list(runs.values()))
    for federation, problem in zip(trials, problems, strict=True):
        federation.state = None  # only the newest method's states stay in memory
        found.add(federation, problem)
    return values._replace(dataset=built.dataset)


def _play(
    trials: Sequence[Federation],
    shown: bar.Bar,
    writers: Sequence[runs_writers.Writers],
) -> list[str | None]:
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
                continue
            if writers[place]:
                newest = runs_writers.values(*federation.history.newest())
                writers[place].round(outcome[0].round, newest)
    for federation, problem, told in zip(trials, problems, writers, strict=True):
        if told and problem is None:
            told.end(federation.summary())
    return problems
