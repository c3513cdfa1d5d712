"""The runs of a preset: where each lies, how far it has come, what is left to do."""

import fnmatch
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import config as configs
from fedjax_mrl import references
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.reproducing import preset as presets
from fedjax_mrl.reproducing.preset import Cells, Preset, Scale
from fedjax_mrl.runs import comparison, course, grid_columns
from fedjax_mrl.runs.comparison import Run
from fedjax_mrl.runs.directory import RunDirectory


class Part(NamedTuple):
    """The runs of one setting; its folder is that of a comparison.

    Attributes:
        name: of the setting.
        folder: where its runs lie.
        base: its configuration, without algorithm, seed and what is swept.
        swept: options of which several values are listed.
        runs: all of them.
    """

    name: str
    folder: pathlib.Path
    base: RunConfig
    swept: tuple[str, ...]
    runs: list[Run]

    def label(self, run: Run) -> str:
        """How a cell is called, as in n100/fedmrl-0."""
        return f"{self.name}/{run.path.name}"


class Progress(NamedTuple):
    """How far a run has come.

    Attributes:
        rounds: rounds that need not be played again, as a checkpoint has them.
        path: the run whose numbers count; None until there is one with all rounds.
        taken: whether it lies elsewhere, in a preset or setting of the same course.
        ended: whether it ended before its last round, as one that diverged.
        played: rounds that its tables have, which may be more.
    """

    rounds: int
    path: pathlib.Path | None
    taken: bool = False
    ended: bool = False
    played: int = 0

    def words(self, whole: int) -> str:
        """What to say of a run of `whole` rounds that is not done."""
        if self.ended:
            return f"ended after round {self.rounds} of {whole}"
        if self.rounds:
            return f"round {self.rounds} of {whole}"
        return "begun, no round saved" if self.played else "not run"


def plan(
    preset: Preset,
    scale: Scale,
    out: pathlib.Path,
    options: Mapping[str, Any] | None = None,
) -> list[Part]:
    """The runs of every setting that has any.

    Args:
        preset: of a table.
        scale: one of its scales.
        out: the preset's folder.
        options: of the command line, which win.

    Raises:
        ConfigError: for an option or method that there is not.
    """
    parts = []
    for name, given in scale.settings.items():
        source = f"{preset.file}: settings.{name}"
        try:
            configs.build(given, source=source)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        base = configs.build(given, options or {}, source="the options given")
        folder = out / scale.name / name
        runs: dict[pathlib.Path, Run] = {}
        swept: list[str] = []
        for cells in scale.cells:
            if name not in cells.settings:
                continue
            swept += [option for option in cells.grid if option not in swept]
            planned = _planned(
                base, cells, folder, f"{preset.file}: scales.{scale.name}"
            )
            for run in planned:
                if runs.setdefault(run.path, run) != run:
                    raise ConfigError(
                        f"{source}: two cells of {scale.name} would both lie in "
                        f"{run.path.name}."
                    )
        if runs:
            parts.append(Part(name, folder, base, tuple(swept), list(runs.values())))
    return parts


def _planned(
    base: RunConfig, cells: Cells, folder: pathlib.Path, source: str
) -> list[Run]:
    """The runs that are listed together, of one setting."""
    try:
        return comparison.plan(base, cells.algorithms, cells.seeds, folder, cells.grid)
    except ConfigError as error:
        raise ConfigError(f"{source}.cells, in {folder.name}: {error}") from None


def chosen(parts: Sequence[Part], only: Sequence[str]) -> list[tuple[Part, Run]]:
    """The cells whose label is one of some patterns; all without a pattern.

    Raises:
        ConfigError: for a pattern that is none's.
    """
    cells = [(part, run) for part in parts for run in part.runs]
    if not only:
        return cells
    named = {part.label(run): (part, run) for part, run in cells}
    found: dict[str, tuple[Part, Run]] = {}
    for pattern in only:
        matching = fnmatch.filter(named, pattern)
        if not matching:
            some = ", ".join(list(named)[:6])
            raise ConfigError(
                f"--only {pattern!r} names no cell of this preset. Cells are called "
                f"{some}{', ...' if len(named) > 6 else ''}; `*` stands for anything."
            )
        found |= {label: named[label] for label in matching}
    return [cell for label, cell in named.items() if label in found]


def first_rounds(cells: Sequence[tuple[Part, Run]]) -> dict[pathlib.Path, str]:
    """Cells that need no run, since earlier ones of another setting hold their rounds.

    Args:
        cells: that are not done, in the order in which they are played.

    Returns:
        The folder of each that will not be played -> label of the one that holds it.
    """
    found: dict[pathlib.Path, str] = {}
    played: list[tuple[Part, Run]] = []
    for part, run in cells:
        for other, longer in played:
            if other.name != part.name and _reaches(longer.config, run.config):
                found[run.path] = other.label(longer)
                break
        else:
            played.append((part, run))
    return found


def _reaches(longer: RunConfig, config: RunConfig) -> bool:
    """Whether the first rounds of one configuration are all rounds of another."""
    if (longer.algorithm, longer.seed) != (config.algorithm, config.seed):
        return False
    enough = longer.rounds >= config.rounds
    return enough and course.same(longer, config)


class Finder:
    """Finds runs that are done, also in other settings and presets beside this one.

    A run of more rounds holds those of fewer on the same schedules, so its first rounds
    are a run of fewer.

    Args:
        out: the preset's folder.
    """

    def __init__(self, out: pathlib.Path) -> None:
        self._out = out
        self._held: list[Run] | None = None

    def __call__(self, run: Run) -> Progress:
        """How far a run has come."""
        if course.finished(run):
            return Progress(run.config.rounds, run.path)
        for other in self._others():
            if other.path != run.path and _holds(other, run):
                return Progress(run.config.rounds, other.path, taken=True)
        if not course.begun(run):
            return Progress(0, None)
        ended = course.rounds_played(run.path)
        if ended is not None:
            return Progress(ended, None, ended=True)
        told = played(run.path)
        return Progress(min(told, _saved(run.path)), None, played=told)

    def _others(self) -> list[Run]:
        if self._held is None:
            self._held = list(_runs_below(self._out))
            for name in presets.names():
                beside = self._out.parent / name
                if beside != self._out:
                    self._held += _runs_below(beside)
        return self._held


def _runs_below(folder: pathlib.Path) -> Iterator[Run]:
    """The runs in a preset's folder that have ended."""
    for path in sorted(folder.glob("*/*/*/summary.json")):
        try:
            text = (path.parent / "config.json").read_text(encoding="utf-8")
            yield Run(RunConfig.from_json(text), path.parent)
        except (OSError, ValueError):
            continue


def _holds(other: Run, run: Run) -> bool:
    """Whether a run that ended has the rounds of another one."""
    rounds = course.rounds_played(other.path) or 0
    if rounds < run.config.rounds or other.config.rounds != rounds:
        return False
    same = course.same(other.config, run.config)
    return same and played(other.path) >= run.config.rounds


def _saved(path: pathlib.Path) -> int:
    """The round of the newest checkpoint of a run; 0 without one."""
    try:
        names = [each.name for each in (path / "checkpoints").iterdir()]
    except OSError:
        return 0
    return max((int(name) for name in names if name.isdigit()), default=0)


def played(path: pathlib.Path) -> int:
    """Rounds that rounds.csv of a run has."""
    try:
        rows = RunDirectory(path).rows("rounds.csv")
    except (OSError, ValueError):
        return 0
    return int(rows[-1]["round"]) if rows else 0


def seconds(scale: Scale, config: RunConfig) -> float | None:
    """Expected seconds of a run by the preset's pace; None where it says none."""
    method = references.short(config.algorithm)
    pace = scale.seconds.get(method, scale.seconds.get("other"))
    if pace is None:
        return None
    images = scale.images * config.cohort_size / config.num_clients * config.epochs
    return config.rounds * pace * images / 40000


def cell_key(run: Run, swept: Sequence[str]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """What runs that are repeats of one another have in common.

    Repeats differ in the seed of training or of the split.
    """
    columns = [column for column in grid_columns.of(swept) if column not in REPEATS]
    values = tuple(
        (column, grid_columns.value(run.config, column)) for column in columns
    )
    return run.config.algorithm, values


REPEATS = ("data_seed", "init_seed")
