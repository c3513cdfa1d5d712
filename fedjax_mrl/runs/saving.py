"""Writes a federation that was trained in Python as a run directory."""

import copy
import dataclasses
import os
from typing import TYPE_CHECKING

from fedjax_mrl.runs import resuming, runner
from fedjax_mrl.runs.checkpoint import Checkpoints
from fedjax_mrl.runs.directory import RunDirectory
from fedjax_mrl.runs.recorder import Recorder

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation


def save(
    federation: "Federation", path: str | os.PathLike, *, overwrite: bool = False
) -> None:
    """Writes configuration, split, tables and a checkpoint of the newest state.

    Args:
        federation: with a `state`. Tables hold the rounds of its `history`; the digest
            is that of the newest round.
        path: the folder, with `overwrite` one that holds a run already.
        overwrite: replace that run. Other files stay.

    Raises:
        ValueError: if no round was played, states lie on the disk, or there is a run.
        OSError: if it cannot be written.
    """
    state = federation.state
    if state is None:
        raise ValueError("There is nothing to save: play rounds with fit() first.")
    if federation.config.client_store == "disk":
        raise ValueError(
            "States of client_store='disk' lie in files of their own; train with "
            "`fedjax-mrl run`, or with client_store='host', to have a run directory."
        )
    made = copy.copy(federation)
    longer = dataclasses.replace(
        federation.config, rounds=max(federation.config.rounds, state.round)
    )
    made.config = resuming.on_its_schedules(longer, federation.config)
    directory = RunDirectory.create(
        path, config=made.config.to_json(), overwrite=overwrite
    )
    try:
        runner.prepare(made, directory)
        with Checkpoints(
            directory.checkpoints, made.config.keep_checkpoints
        ) as checkpoints:
            recorder = Recorder(made, directory, checkpoints)
            recorder.record_history(made.history, state)
            checkpoints.wait()
        recorder.summarise()
    finally:
        directory.unlock()
