"""Builds the federation of an earlier run, for the commands that take one."""

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    import pathlib

    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.rundir import RunDirectory


def configuration(directory: "RunDirectory", **changes: Any) -> "RunConfig":
    """The run's configuration, with some fields changed; None changes nothing."""
    from fedjax_mrl.config import RunConfig

    config = RunConfig.from_json(directory.read_text("config.json"))
    changes = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(config, **changes)


def federation(
    directory: "RunDirectory",
    config: "RunConfig",
    *,
    unfinished: bool = False,
    client_folder: "pathlib.Path | None" = None,
) -> "Federation":
    """The run's federation on the split that was saved with it.

    Args:
        directory: the run.
        config: its configuration.
        unfinished: the split may be missing, as a killed run leaves it, and is made
            anew.
        client_folder: of a store on the disk; by default the run's own.

    Raises:
        UsageError: if the images are no longer those of the run.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    import json

    from fedjax_mrl import partitions
    from fedjax_mrl.cli import devices
    from fedjax_mrl.federation import Federation

    devices.provide(config)
    devices.require()
    saved = directory.path / "partition.npz"
    made = unfinished and not saved.exists()
    built = Federation(
        config,
        partition=None if made else partitions.load(saved),
        client_folder=client_folder or directory.clients,
    )
    try:
        known = json.loads(directory.read_text("environment.json"))["data_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return built  # killed before it was written, or of an older version
    if known != built.dataset.sha256():
        raise UsageError(
            f"The images of {config.dataset} are not those that {directory.path} "
            "began with (their checksum differs). Restore the data files, or begin a "
            "new run."
        )
    return built


def moved(directory: "RunDirectory", round: int) -> str | None:
    """What to say of a run that goes on elsewhere than its last round was played.

    Args:
        directory: the run.
        round: the last one that is kept; 0 if it begins again.
    """
    from fedjax_mrl import environment

    there = environment.of_round(environment.recorded(directory), round)
    changes = there and environment.changes(there, environment.describe())
    if not changes:
        return None
    return (
        f"{directory.path} goes on in another environment than round {round} ("
        f"{'; '.join(changes)}); last bits may differ from here on."
    )
