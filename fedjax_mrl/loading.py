"""Brings back the federation and the state of a run from its folder. Writes nothing."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from fedjax_mrl import (
    algorithms,
    datasets,
    discovery,
    models,
    partitions,
    references,
)
from fedjax_mrl.building.values import Values, take
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset, DatasetError
from fedjax_mrl.federation import Federation
from fedjax_mrl.history import TABLES
from fedjax_mrl.protocol import Algorithm
from fedjax_mrl.results import Row
from fedjax_mrl.runs import checksums, resuming
from fedjax_mrl.runs.checkpoint import CheckpointError
from fedjax_mrl.runs.directory import RunDirectory, RunDirectoryError
from fedjax_mrl.simulation.state import State

_ATTEMPTS = 5  # while another process replaces checkpoints


def load(
    path: str | os.PathLike,
    *,
    dataset: Dataset | str | os.PathLike | None = None,
    algorithm: Callable[..., Algorithm] | None = None,
    models: Sequence[Any] = (),
    **changes: Any,
) -> Federation:
    """Loads a finished or interrupted run, also one that is still being written.

    The federation is on the split that was saved with the run, its `state` is the
    newest undamaged checkpoint's, and its `history` has the rounds up to there:
    `predict`, `evaluate` and `rounds` work on it.
    Nothing in the folder is changed; `fedjax-mrl resume` goes on there. A finished run
    has no rounds left, so `rounds()` yields none; `rounds(until=...)` and
    `fit(rounds=...)` play more.

    Args:
        path: the run directory, `--out` of `fedjax-mrl run`.
        dataset: the data, if they have no name here, or where they lie now.
        algorithm: the method, if it was a function that cannot be imported.
        models: networks likewise, the private ones and the shared one.
        **changes: settings that change no number of any round, as `data_dir`,
            `rounds` or `eval_every`. `devices` is by default all that there are.

    Raises:
        RunDirectoryError: if there is no run.
        CheckpointError: if it has no checkpoint that can be used.
        DatasetError: if the images are not those of the run.
        ConfigError: for a change that would change results.

    Example:
        >>> import tempfile
        >>> import fedjax_mrl as fm
        >>> from fedjax_mrl.cli.main import main
        >>> folder = tempfile.mkdtemp()
        >>> argv = ["--models", "mlp", "--shared-model", "mlp", "--num-clients", "5"]
        >>> main(["run", *argv, "--rounds", "1", "--quiet", "--out", f"{folder}/a"])
        0
        >>> federation = fm.load(f"{folder}/a")
        >>> assert list(federation.rounds()) == []
        >>> [result.state.round for result in federation.rounds(until=2)]
        [2]
    """
    directory = RunDirectory.open(path)
    if not _present(directory):
        raise _no_checkpoint(directory, [])
    config = _changed(directory.config(), changes)
    overlay = _Overlay(directory.clients)
    values = _given(config, algorithm, models, dataset)
    built = federation(directory, config, client_folder=overlay.path, values=values)
    built.state = newest(built, directory, warnings.warn, overlay.refresh)
    built.history.begin_with(tables(directory, built.state.round))
    built.keeps = overlay  # also of its other trials
    return built


def _given(
    config: RunConfig,
    algorithm: Callable[..., Algorithm] | None,
    models: Sequence[Any],
    dataset: Dataset | str | os.PathLike | None,
) -> Values:
    """The values that were given for names of the run."""
    _require_own_names(config, algorithm, models)
    data = _read(dataset, config)
    given = {"algorithm": algorithm, "models": models, "dataset": data}
    return take({name: value for name, value in given.items() if value})[1]


def _read(
    dataset: Dataset | str | os.PathLike | None, config: RunConfig
) -> Dataset | None:
    """The data that were given, read if it was their path."""
    if isinstance(dataset, str | os.PathLike):
        where = os.fspath(dataset)
        return datasets.load(where, config.data_dir, config.image_size)
    return dataset


def _require_own_names(config: RunConfig, algorithm: Any, models: Any) -> None:
    """Refuses names of others than the run has: it goes on as it was begun."""
    listed = models if isinstance(models, list | tuple) else [models]
    pairs = [("algorithm", algorithm, [config.algorithm])]
    pairs += [("models", m, [*config.models, config.shared_model]) for m in listed]
    for kind, name, own in pairs:
        if isinstance(name, str) and references.absolute(name) not in own:
            raise ConfigError(
                f"{kind} of the run are {', '.join(dict.fromkeys(own))}; got {name!r}. "
                "Leave it out, or give the function or network if it has no name."
            )


def federation(
    directory: RunDirectory,
    config: RunConfig,
    *,
    unfinished: bool = False,
    client_folder: pathlib.Path | None = None,
    values: Values | None = None,
) -> Federation:
    """The run's federation on the split that was saved with it.

    Args:
        directory: the run.
        config: its configuration.
        unfinished: the split may be missing, as a killed run leaves it, and is made
            anew.
        client_folder: of a store on the disk; by default the run's own.
        values: data, methods and networks without a name here.

    Raises:
        DatasetError: if the data are not those of the run, or have no name.
        ConfigError: if code of the user's own has changed since the run began.
    """
    values = values or Values()
    saved = directory.path / "partition.npz"
    anew = unfinished and not saved.exists()
    if values.dataset is None and not _has_name(config.dataset):
        raise DatasetError(
            f"The data of {directory.path} must be given, since "
            f"{config.dataset!r} is no data set with a name here: load(path, "
            "dataset=arrays(...)). "
            + discovery.unknown("dataset", config.dataset, datasets.names())
        )
    if values.dataset is not None:
        values = values._replace(dataset=values.dataset._replace(name=config.dataset))
    values = values._replace(tasks=_tasks(directory))
    _require_values(config, values)
    sums = checksums.recorded(directory)
    changed = checksums.changed_code(sums, config)
    if changed is not None:
        raise ConfigError(
            f"The file of {changed} has changed since the run began (its checksum "
            "differs). Restore it, or begin a new run."
        )
    if not anew:
        values = values._replace(partition=partitions.load(saved))
    built = Federation(
        config, values=values, client_folder=client_folder or directory.clients
    )
    if not checksums.same_data(sums, built.dataset.sha256()):
        raise DatasetError(
            f"The data of {config.dataset} are not those that {directory.path} "
            "began with (their checksum differs). Restore the data files, or begin a "
            "new run."
        )
    return built


def _tasks(directory: RunDirectory) -> dict[str, list[int]] | None:
    """The tasks of the run's clients; None if all had the data's classes.

    Raises:
        RunDirectoryError: if their file is damaged.
    """
    try:
        return json.loads(directory.read_text("tasks.json"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise RunDirectoryError(
            f"{directory.path / 'tasks.json'} is damaged: it is no JSON. Restore it, "
            "or begin a new run."
        ) from None


def tables(directory: RunDirectory, last: int) -> dict[str, list[Row]]:
    """The rows of a run's tables up to a round, with numbers for numbers."""
    found = {}
    for table in TABLES:
        try:
            rows = directory.rows(f"{table}.csv")
        except OSError:
            rows = []
        typed = [{name: _value(text) for name, text in row.items()} for row in rows]
        found[table] = [row for row in typed if row["round"] <= last]
    return found


def _value(text: str) -> Any:
    """A cell of a table: a number if it reads like one, None if it is empty."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def _require_values(config: RunConfig, values: Values) -> None:
    """Refuses names that were those of values, which have to be given again."""
    for kind, names, known, given in (
        ("algorithm", [config.algorithm], algorithms.names(), values.algorithms),
        (
            "models",
            [*config.models, config.shared_model],
            models.names(),
            values.models,
        ),
    ):
        for name in names:
            named = name in known or references.is_reference(name)
            if not named and name not in given:
                value = f"[{name}]" if kind == "models" else name
                raise ConfigError(
                    f"{name!r} of the run was a value that cannot be imported: give it "
                    f"again, as load(path, {kind}={value}). "
                    + discovery.unknown(kind.rstrip("s"), name, known)
                )


def _has_name(dataset: str) -> bool:
    """Whether a data set can be loaded by its name."""
    return dataset in datasets.names() or references.is_data_path(dataset)


def newest(
    built: Federation,
    directory: RunDirectory,
    warn: Callable[[str], None],
    refresh: Callable[[], object] = lambda: None,
) -> State:
    """The newest undamaged checkpoint's state.

    Args:
        built: the run's federation.
        directory: the run, which another process may be writing.
        warn: is told of each checkpoint that cannot be used, if one can.
        refresh: called before each attempt.

    Raises:
        CheckpointError: if none can be used.
    """
    unusable: list[str] = []
    for _ in range(_ATTEMPTS):
        there = _present(directory)
        refresh()
        unusable = []
        state = resuming.restore(built, directory, unusable.append)
        if state is not None:
            for text in unusable:
                warn(text)
            return state
        if _present(directory) == there:
            break
    raise _no_checkpoint(directory, unusable)


def _no_checkpoint(directory: RunDirectory, unusable: list[str]) -> CheckpointError:
    resuming.require_reachable(directory)  # it says something else to do
    reasons = (
        " ".join(unusable) or f"There is no checkpoint in {directory.checkpoints}."
    )
    return CheckpointError(
        f"{reasons} `fedjax-mrl resume {directory.path}` plays the run again; a run "
        "that goes on writes one every checkpoint_every rounds."
    )


def _present(directory: RunDirectory) -> set[str]:
    """Names of the complete checkpoints."""
    try:
        return {name for name in os.listdir(directory.checkpoints) if name.isdecimal()}
    except OSError:
        return set()


def _changed(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """The configuration with changes that leave results as they are."""
    if config.devices and "devices" not in changes:
        changes = {"devices": 0, **changes}
    for name, value in changes.items():
        if name not in resuming.FREE:
            raise ConfigError(
                discovery.unknown("setting that load may change", name, resuming.FREE)
            )
        if not resuming.may_differ(name, getattr(config, name), value):
            raise ConfigError(
                "A run with client_store='disk' keeps its client states there, and no "
                f"other run can move its states there; got client_store={value!r} for "
                f"a run with {config.client_store!r}. Leave it out."
            )
    return resuming.on_its_schedules(dataclasses.replace(config, **changes), config)


class _Overlay:
    """A new folder that shows the files of another one and takes new ones by itself.

    What it has shown stays there, also when the other folder loses it. It is removed
    with this object.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp())
        self._folder = folder
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def refresh(self) -> None:
        """Shows what is there by now."""
        for path in self._folder.rglob("*.npz"):
            link = self.path / path.relative_to(self._folder)
            if link.exists():
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                _link(path, link)


def _link(path: pathlib.Path, link: pathlib.Path) -> None:
    """Gives a file, which nobody writes again, a second name, or copies it."""
    try:
        os.link(path, link)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, link)
