"""The state that a run goes on from, and the settings that may change meanwhile."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedjax_mrl import references
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs.checkpoint import CheckpointError, Checkpoints
from fedjax_mrl.runs.directory import RunDirectory
from fedjax_mrl.simulation.state import State

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation


def restore(
    federation: "Federation", directory: RunDirectory, warn: Callable[[str], None]
) -> State | None:
    """The newest undamaged checkpoint's state; None if there is none.

    Args:
        federation: what was run.
        directory: where.
        warn: is told of every checkpoint that cannot be used.

    Raises:
        CheckpointError: if a checkpoint is of another configuration, or those that
            there should be are out of reach.
    """
    require_reachable(directory)
    if not directory.checkpoints.is_dir():
        return None
    like = federation.arrays(federation.init())
    with Checkpoints(directory.checkpoints, federation.config.keep_checkpoints) as kept:
        for round in kept.rounds():
            try:
                theirs = _configuration(kept.notes(round), round)
            except CheckpointError as error:
                warn(f"{error} Now the one before it is tried.")
                continue
            # Before the arrays, which those of another one do not fit.
            _require_same(theirs, json.loads(federation.config.to_json()), round)
            try:
                saved = kept.read(round, like)
            except CheckpointError as error:
                warn(f"{error} Now the one before it is tried.")
                continue
            state = federation.place(round, saved.arrays)
            try:
                digest = federation.digester()(state)[0]
            except OSError as error:  # a client's file, of a store on the disk
                warn(f"{error} Now the checkpoint before round {round} is tried.")
                continue
            if digest == saved.notes["digest"]:
                return state
            warn(
                f"The checkpoint of round {round} in {directory.checkpoints} is "
                "damaged (its digest differs). Now the one before it is tried."
            )
    return None


def require_reachable(directory: RunDirectory) -> None:
    """Refuses a run whose checkpoints are not gone, but out of reach for now.

    A run that has ended wrote one; a run that was killed may have written none.

    Raises:
        CheckpointError: that says what to do.
    """
    folder = directory.checkpoints
    if not folder.is_dir() and os.path.lexists(folder):
        what = "a link that leads nowhere" if folder.is_symlink() else "a file"
        raise CheckpointError(
            f"{folder} must be the folder of the run's checkpoints, but is {what}. "
            "Bring the folder back, or remove what is in its place."
        )
    ended = (directory.path / "summary.json").exists()
    if ended and not (folder.is_dir() and any(folder.iterdir())):
        raise CheckpointError(
            f"There is no checkpoint in {folder}, although the run has ended. Bring "
            "the folder back, or remove summary.json, after which `fedjax-mrl resume "
            f"{directory.path}` plays the run again."
        )


# Settings that change no number of any round, or only how many rounds there are.
FREE = (
    "data_dir",
    "rounds",
    "schedule_rounds",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "digest_every",
    "devices",
    "client_store",
)


def may_differ(key: str, old: object, new: object) -> bool:
    """Whether a run may go on with another value of a setting."""
    if key == "client_store" and "disk" in (old, new):
        return old == new  # a checkpoint of files does not suit another store
    if (
        key == "dataset"
    ):  # files that were moved; a checksum says whether they are the same
        paths = [references.is_data_path(str(text)) for text in (old, new)]
        return old == new or all(paths)
    return key in FREE or old == new


def on_its_schedules(new: RunConfig, old: RunConfig) -> RunConfig:
    """`new` with the schedules of `old`, which go on as the run began them."""
    if new.rounds == old.rounds or new.schedule_rounds is not None:
        return new
    return dataclasses.replace(new, schedule_rounds=max(old.rounds, 1))


def schedule_length(config: RunConfig) -> int:
    """Rounds over which the schedules of a run extend."""
    return config.rounds if config.schedule_rounds is None else config.schedule_rounds


def _configuration(notes: dict[str, Any], round: int) -> dict[str, Any]:
    """A checkpoint's configuration; one of an earlier version has all settings too."""
    if not all(isinstance(notes.get(name), str) for name in ("config", "digest")):
        raise CheckpointError(
            f"The checkpoint of round {round} cannot be read: its notes are damaged."
        )
    return json.loads(RunConfig.from_json(notes["config"]).to_json())


def _require_same(theirs: dict[str, Any], ours: dict[str, Any], round: int) -> None:
    keys = [
        key
        for key in dict.fromkeys([*theirs, *ours])
        if not may_differ(key, theirs.get(key), ours.get(key))
    ]
    if keys:
        listed = "; ".join(f"{k}: {theirs.get(k)!r} -> {ours.get(k)!r}" for k in keys)
        raise CheckpointError(
            f"The checkpoint of round {round} was made under another configuration "
            f"({listed}). Restore config.json, or begin a new run."
        )
