"""Brings back the federation and the state of a run from its folder. Writes nothing."""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from fedjax_mrl import datasets, discovery, partitions
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data.dataset import Dataset, DatasetError
from fedjax_mrl.federation import Federation
from fedjax_mrl.runs import resuming
from fedjax_mrl.runs.checkpoint import CheckpointError
from fedjax_mrl.runs.directory import RunDirectory
from fedjax_mrl.simulation.rounds import State

_ATTEMPTS = 5  # while another process replaces checkpoints


def load(
    path: str | os.PathLike, *, dataset: Dataset | None = None, **changes: Any
) -> Federation:
    """Loads a finished or interrupted run, also one that is still being written.

    The federation is on the split that was saved with the run, and its `state` is the
    newest undamaged checkpoint's: `predict`, `evaluate` and `rounds` work on it.
    Nothing in the folder is changed, nor does the run go on there; for that there is
    `fedjax-mrl resume`. A finished run has no rounds left, so `rounds()` yields none;
    `rounds(until=...)`, with a greater number than it has, and `fit(rounds=...)` play
    more.

    Args:
        path: the run directory, `--out` of `fedjax-mrl run`.
        dataset: the images, if they have no name here.
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
        >>> federation.state.round, list(federation.rounds())
        (1, [])
        >>> [result.state.round for result in federation.rounds(until=2)]
        [2]
    """
    directory = RunDirectory.open(path)
    if not _present(directory):
        raise _no_checkpoint(directory, [])
    config = _changed(RunConfig.from_json(directory.read_text("config.json")), changes)
    on_disk = config.client_store == "disk"
    overlay = _Overlay(directory.clients) if on_disk else None
    built = federation(
        directory,
        config,
        client_folder=overlay and overlay.path,
        dataset=dataset,
    )
    built.state = newest(built, directory, warnings.warn)
    built.keeps = overlay  # also of its other trials
    return built


def federation(
    directory: RunDirectory,
    config: RunConfig,
    *,
    unfinished: bool = False,
    client_folder: pathlib.Path | None = None,
    dataset: Dataset | None = None,
) -> Federation:
    """The run's federation on the split that was saved with it.

    Args:
        directory: the run.
        config: its configuration.
        unfinished: the split may be missing, as a killed run leaves it, and is made
            anew.
        client_folder: of a store on the disk; by default the run's own.
        dataset: the images; by default loaded by their name.

    Raises:
        DatasetError: if the images are not those of the run, or have no name.
    """
    saved = directory.path / "partition.npz"
    made = unfinished and not saved.exists()
    if dataset is None and config.dataset not in datasets.names():
        raise DatasetError(
            f"The images of {directory.path} must be given, since "
            f"{config.dataset!r} is no data set with a name here: load(path, "
            "dataset=arrays(...)). "
            + discovery.unknown("dataset", config.dataset, datasets.names())
        )
    if dataset is not None:
        dataset = dataset._replace(name=config.dataset)
    built = Federation(
        config,
        dataset=dataset,
        partition=None if made else partitions.load(saved),
        client_folder=client_folder or directory.clients,
    )
    try:
        known = json.loads(directory.read_text("environment.json"))["data_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return built  # killed before it was written, or of an older version
    if known != built.dataset.sha256():
        raise DatasetError(
            f"The images of {config.dataset} are not those that {directory.path} "
            "began with (their checksum differs). Restore the data files, or begin a "
            "new run."
        )
    return built


def newest(
    built: Federation, directory: RunDirectory, warn: Callable[[str], None]
) -> State:
    """The newest undamaged checkpoint's state.

    Args:
        built: the run's federation.
        directory: the run, which another process may be writing.
        warn: is told of each checkpoint that cannot be used, if one can.

    Raises:
        CheckpointError: if none can be used.
    """
    for _ in range(_ATTEMPTS):
        there = _present(directory)
        unusable: list[str] = []
        state = resuming.restore(built, directory, unusable.append)
        if state is not None:
            for text in unusable:
                warn(text)
            return state
        if _present(directory) == there:
            break
    raise _no_checkpoint(directory, unusable)


def _no_checkpoint(directory: RunDirectory, unusable: list[str]) -> CheckpointError:
    found = " ".join(unusable) or f"There is no checkpoint in {directory.checkpoints}."
    return CheckpointError(
        f"{found} `fedjax-mrl resume {directory.path}` plays the run again; a run that "
        "goes on writes one every checkpoint_every rounds."
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
                f"The states of a run on the disk stay there, no others move there; "
                f"got client_store={value!r} for {config.client_store!r}."
            )
    return resuming.on_its_schedules(dataclasses.replace(config, **changes), config)


class _Overlay:
    """A new folder that shows the files of another one and takes new ones by itself.

    It is removed with this object.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        for path in folder.rglob("*.npz"):
            link = self.path / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
