"""Saves and restores the state of a run with orbax. No pickle.

States are stacked by group, so a checkpoint is a few large arrays, written while the
next rounds run. Orbax writes to a temporary name and renames: a checkpoint is
complete or absent. Each holds the digest of its state, so that one that was damaged
later is told from a good one.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers


class CheckpointError(ValueError):
    """No checkpoint that can be used; the message says what to do."""


class SaveError(OSError):
    """A checkpoint that could not be written; earlier ones are intact."""


class Restored(NamedTuple):
    """A checkpoint as it was read; whether it is undamaged, its digest tells."""

    round: int
    arrays: Any
    notes: dict[str, Any]  # config, digest


class Checkpoints:
    """The checkpoints of one run. Use as a context manager.

    Args:
        folder: made when the first one is saved.
        keep: how many of the newest stay, beside the one of the best accuracy.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 1) -> None:
        self._folder = folder
        latest = managers.LatestN(n=keep)
        best = managers.BestN(
            get_metric_fn=lambda metrics: metrics["accuracy"],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._manager = ocp.CheckpointManager(
            folder.resolve(),
            options=ocp.CheckpointManagerOptions(
                create=True,
                preservation_policy=managers.AnyPreservationPolicy([latest, best]),
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Closing would wait for other processes: for one that is lost, or from one
        # that failed where they did not.
        failed = kind is not None and issubclass(
            kind, (OSError, jax.errors.JaxRuntimeError)
        )
        if not failed or jax.process_count() == 1:
            self._manager.close()

    def rounds(self) -> list[int]:
        """Rounds of which there is a complete checkpoint, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(
        self,
        round: int,
        arrays: Any,
        notes: Mapping[str, Any],
        accuracy: float | None = None,
    ) -> None:
        """Begins to write a checkpoint; returns while it is being written.

        Saving a round that is already there does nothing.

        Args:
            round: whose state it is.
            arrays: a pytree on the host, which nobody changes any more.
            notes: JSON values kept beside it.
            accuracy: by which the best is chosen.

        Raises:
            SaveError: if this one, or the one before it, cannot be written.
        """
        if round in self.rounds():
            return
        try:
            self._manager.save(
                round,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays),
                    notes=ocp.args.JsonSave(dict(notes)),
                ),
                metrics=None if accuracy is None else {"accuracy": accuracy},
            )
        except jax.errors.JaxRuntimeError:
            raise  # another process is lost
        except Exception as error:  # orbax, tensorstore and the system have their own
            raise self._failed(error) from error

    def wait(self) -> None:
        """Returns when all that was saved is on the disk.

        Raises:
            SaveError: if it could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def read(self, round: int, like: Any) -> Restored:
        """Reads the checkpoint of a round.

        Args:
            round: one of `rounds`.
            like: arrays of the same shapes, or their `jax.eval_shape`.

        Raises:
            CheckpointError: if it cannot be read or does not fit `like`.
        """
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like
        )
        try:
            found = self._manager.restore(
                round,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract),
                    notes=ocp.args.JsonRestore(),
                ),
            )
            return Restored(round, found["state"], found["notes"])
        except Exception as error:  # whatever damage makes its readers raise
            raise CheckpointError(
                f"The checkpoint of round {round} in {self._folder} cannot be read: "
                f"{' '.join(str(error).split())[:200]}"
            ) from None

    def _failed(self, error: Exception) -> SaveError:
        held = ", ".join(map(str, self.rounds()))
        return SaveError(
            f"Cannot save a checkpoint in {self._folder}: "
            f"{' '.join(str(error).split())[:300]}. "
            f"Complete are the checkpoints of rounds {held or '(none)'}."
        )
