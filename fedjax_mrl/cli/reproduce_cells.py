"""Plays the cells of a published table, and goes on after one that fails."""

import itertools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedjax_mrl.cli import console, defects, reproduce_folder, signals, telling
from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.data.dataset import Dataset
    from fedjax_mrl.reproducing.parts import Finder, Part
    from fedjax_mrl.runs.comparison import Run


def play(
    cells: "list[tuple[Part, Run]]",
    finder: "Callable[[], Finder]",
    loader: "Loader",
    told: telling.Telling,
) -> tuple[int, list[str]]:
    """Plays cells, one after another; says on stderr why one fails.

    Args:
        cells: that are not done.
        finder: returns what says which are done by now, also by others of them.
        loader: of their data.
        told: where rounds are told of.

    Returns:
        The greatest exit status, above 128 after a signal; and the labels of the
        cells that failed.
    """
    status = 0
    failed: list[str] = []
    with signals.Stop() as stop:
        for _, group in itertools.groupby(cells, lambda cell: cell[0].name):
            ours, find = list(group), finder()
            part = ours[0][0]
            runs = [run for _, run in ours if find(run).path is None]
            if not runs:
                continue
            try:
                ended, names = _play_part(part, runs, loader, stop, told)
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                # Of one setting: its data, its folder, its memory. Others go on.
                console.tell(f"{part.name}: {_said(error)}")
                wrong_use = isinstance(error, ValueError) and defects.foreseen(error)
                ended = 2 if wrong_use else 1
                names = [run.path.name for run in runs]
            status = max(status, ended)
            failed += [f"{part.name}/{name}" for name in names]
            if status > 128:
                break
    return status, failed


def _play_part(
    part: "Part",
    runs: "list[Run]",
    loader: "Loader",
    stop: signals.Stop,
    told: telling.Telling,
) -> tuple[int, list[str]]:
    """Plays runs of one setting: the exit status, and the names of those that fail."""
    from fedjax_mrl.cli import trials
    from fedjax_mrl.runs import comparison, comparison_folder

    dataset = loader(part.base)
    place = comparison_folder.find(
        part.folder,
        part.base,
        runs,
        swept=part.swept,
        overwrite=False,
        data_sha256=dataset.sha256(),
    )
    playing = trials.Trials(place, dataset, 1, stop, told)
    for one_program in comparison.of_one_program(place.runs):
        try:
            playing.play(one_program)
        except (RuntimeError, MemoryError) as error:
            text = _said(error)
            console.tell(f"{one_program[0].path.name}: {text}")
            playing.ends |= {
                run.path: text for run in one_program if run.path not in playing.ends
            }
            playing.status = max(playing.status, 1)
        if playing.status > 128:
            break
    ends = playing.ends.items()
    return playing.status, [path.name for path, text in ends if text != "done"]


def _said(error: Exception) -> str:
    """What an error says, in one line, or its type."""
    return " ".join(str(error).split())[:500] or type(error).__name__


class Loader:
    """Loads data sets; keeps the last one, which the next setting often has too.

    Args:
        told: where its notes are told.
    """

    def __init__(self, told: telling.Telling) -> None:
        self._told = told
        self._key: tuple[object, ...] | None = None
        self._held: Dataset | None = None

    def require(self, cells: "list[tuple[Part, Run]]", find: "Finder") -> None:
        """Loads all data of cells that are to be played, before the first is.

        The last that is loaded stays, which is the first that is needed.

        Args:
            cells: that are not done.
            find: says how far a run has come.

        Raises:
            ValueError: if some cannot be had, or are not those of runs that are there.
        """
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from fedjax_mrl.cli import devices

        devices.provide(cells[0][1].config)
        devices.require()
        bases = {_key(part.base): part for part, _ in reversed(cells)}
        for part in bases.values():
            try:
                self(part.base)
            except ValueError as error:
                raise UsageError(
                    f"{part.name}: {error} Nothing was run. `--only` plays the cells "
                    "of other settings."
                ) from None
            for other in {part.name: part for part, _ in cells}.values():
                if _key(other.base) == _key(part.base):
                    sha256 = self(part.base).sha256()
                    reproduce_folder.require_runs(other, find, sha256)

    def __call__(self, config: "RunConfig") -> "Dataset":
        """The data set of a configuration.

        Raises:
            ValueError: if it cannot be had.
        """
        from fedjax_mrl.building import from_config

        key = _key(config)
        if self._held is None or self._key != key:
            self._held = None  # two would lie in memory at once
            self._held = from_config.data(config)
            self._key = key
            if not self._told.quiet:
                console.tell(*self._held.notes)
        return self._held


def _key(config: "RunConfig") -> tuple[object, ...]:
    """What two configurations of the same data have in common."""
    return (
        *(config.dataset, config.data_dir, config.image_size, config.data_seed),
        *(config.limit_train, config.limit_test, config.test_fraction),
    )
