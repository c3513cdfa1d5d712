"""Builds the federation of an earlier run, for the commands that take one."""

import dataclasses
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pathlib

    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.runs.directory import RunDirectory
    from fedjax_mrl.simulation.state import State

NOTHING_SAVED = "There is no checkpoint that can be used; the run begins with round 1."


def configuration(directory: "RunDirectory", **changes: Any) -> "RunConfig":
    """The run's configuration, with some fields changed; None changes nothing."""
    changes = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(directory.config(), **changes)


def federation(
    directory: "RunDirectory",
    config: "RunConfig",
    *,
    unfinished: bool = False,
    client_folder: "pathlib.Path | None" = None,
) -> "Federation":
    """The run's federation, on the devices of the command line; see `loading`."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    from fedjax_mrl.cli import devices

    devices.provide(config)
    devices.require()
    from fedjax_mrl import loading

    return loading.federation(
        directory, config, unfinished=unfinished, client_folder=client_folder
    )


def newest(federation: "Federation", directory: "RunDirectory") -> "State":
    """The newest state that can be used; tells of damaged checkpoints.

    Raises:
        CheckpointError: if there is none.
    """
    from fedjax_mrl import loading

    unusable: list[str] = []
    state = loading.newest(federation, directory, unusable.append)
    for text in unusable:
        print(f"fedjax-mrl: {text}", file=sys.stderr)
    return state


def rows(directory: "RunDirectory", name: str) -> list[dict[str, str]]:
    """The lines of a run's table; tells of what cannot be read and is left out."""
    from fedjax_mrl.runs import tables

    path = directory.path / name
    try:
        found, gone = directory.sound(name)
    except OSError as error:
        found, told = [], f"{path} cannot be read ({error.strerror})"
    else:
        told = tables.left_out(str(path), gone)
    if told:
        print(f"fedjax-mrl: {told}.", file=sys.stderr)
    return found


def moved(directory: "RunDirectory", round: int) -> str | None:
    """The warning for a run that goes on elsewhere than its last round was played.

    Args:
        directory: the run.
        round: the last one that is kept; 0 if it begins again.
    """
    from fedjax_mrl.runs import environment

    environment_then = environment.of_round(environment.recorded(directory), round)
    changes = environment_then and environment.changes(
        environment_then, environment.describe()
    )
    if not changes:
        return None
    return (
        f"{directory.path} goes on in another environment than that of round {round} ("
        f"{'; '.join(changes)}); last bits may differ from here on."
    )
