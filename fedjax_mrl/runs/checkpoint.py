"""Saves and restores the state of a run with orbax. No pickle.

States are stacked by group, so a checkpoint is a few large arrays, written while the
next rounds run. They are written as they lie in memory: not copied first, since nobody
changes them any more, and not compressed, since weights hardly become smaller. Orbax
writes to a temporary name and renames: a checkpoint is complete or absent. Each holds
the digest of its state, so that one that was damaged later is told from a good one.
What was saved is looked at, and only then are older ones removed.
"""

import contextlib
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from fedjax_mrl import paths

MANIFEST = "state/manifest.ocdbt"  # of a checkpoint, the list of its arrays
READ_BACK = 256 * 2**20  # bytes; larger states are opened but not read back


class CheckpointError(ValueError):
    """No checkpoint that can be used; the message says what to do."""


class SaveError(OSError):
    """A checkpoint that could not be written; earlier ones are intact."""


class Restored(NamedTuple):
    """A checkpoint as it was read; its digest shows whether it is undamaged."""

    round: int
    arrays: Any  # a pytree
    notes: dict[str, Any]  # JSON values: config, digest


class _Written(NamedTuple):
    """The content that a checkpoint which is being written must have when read."""

    round: int
    like: Any  # shapes and types
    notes: dict[str, Any]
    sums: list[int] | None  # of the arrays' bytes; None if they are too many


class Checkpoints:
    """The checkpoints of one run. Use as a context manager.

    Every checkpoint is looked at when it is complete, at the next `save` or `wait`:
    its notes are read and every array is opened and has the shape and type that it
    should. The first one, and each that is waited for (so the last one of a run), is
    also read back and compared byte by byte, unless it is larger than `READ_BACK`.
    Older ones are removed after that, never because of one that cannot be read.

    Args:
        folder: made if it is absent.
        keep: how many of the newest stay, beside the one of the best accuracy.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 1) -> None:
        self._folder, self._keep = folder, keep
        self._writing: _Written | None = None
        self._looked = False  # closely, at one that this object wrote
        self._unreadable: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._way = stack.enter_context(paths.plain(folder))
            self._manager = ocp.CheckpointManager(
                self._way,
                options=ocp.CheckpointManagerOptions(create=True),
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(
                        use_compression=False,
                        type_handler_registry=_uncopied(),
                    ),
                    "notes": ocp.JsonCheckpointHandler(),
                },
            )
            self._stack = stack.pop_all()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Closing would wait for other processes: for one that is lost, or from one
        # that failed where they did not.
        failed = kind is not None and issubclass(
            kind, (OSError, jax.errors.JaxRuntimeError)
        )
        if not failed or jax.process_count() == 1:
            with self._stack:
                self._manager.close()

    def rounds(self) -> list[int]:
        """Rounds of which there is a complete checkpoint, newest first."""
        readable = set(self._manager.all_steps()) - self._unreadable
        return sorted(readable, reverse=True)

    def save(
        self,
        round: int,
        arrays: Any,
        notes: Mapping[str, Any],
        accuracy: float | None = None,
    ) -> None:
        """Begins to write a checkpoint; returns while it is being written.

        Saving a round again that is there and whole does nothing; one that is damaged
        is replaced.

        Args:
            round: whose state it is.
            arrays: a pytree on the host, which nobody changes any more.
            notes: JSON values kept beside it.
            accuracy: by which the best is chosen.

        Raises:
            SaveError: if this one, or the one before it, cannot be written or read.
        """
        self._settle(closely=not self._looked)
        best = {} if accuracy is None else {"accuracy": accuracy}
        written = _expect(round, arrays, {**notes, **best})
        try:
            if round in self._manager.all_steps():
                if self._fault(written, closely=True) is None:
                    return
                self._manager.delete(round)
                self._unreadable.discard(round)
            self._manager.save(
                round,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(arrays),
                    notes=ocp.args.JsonSave(written.notes),
                ),
                force=True,  # also one older than the newest, which orbax would skip
            )
        except jax.errors.JaxRuntimeError:
            raise  # another process is lost
        except Exception as error:  # orbax, tensorstore and the system have their own
            raise self._failed(self._words(error), round) from error
        self._writing = written

    def wait(self) -> None:
        """Returns when all that was saved is on the disk, and was read back from it.

        Raises:
            SaveError: if it could not be written or read.
        """
        self._settle(closely=True)

    def _settle(self, *, closely: bool) -> None:
        """Waits for what is being written, looks at it, removes what is too old."""
        written, self._writing = self._writing, None
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:
            round = None if written is None else written.round
            raise self._failed(self._words(error), round) from error
        if written is None:
            return
        fault = self._fault(written, closely=closely)
        if fault is not None:
            raise self._failed(f"it cannot be read back: {fault}", written.round)
        self._looked = self._looked or closely
        self._prune()

    def _fault(self, written: _Written, *, closely: bool) -> str | None:
        """Describes the fault of a complete checkpoint; None if it has none."""
        if not self._assembled(written.round):
            return f"{MANIFEST} is missing"
        try:
            metadata = self._manager.item_metadata(written.round)["state"]
            _require_shapes(metadata.tree, written.like)
            if self._notes(written.round) != written.notes:
                return "its notes differ"
            if closely and written.sums is not None:
                arrays = self.read(written.round, written.like).arrays
                if _sums(arrays) != written.sums:
                    return "its numbers differ"
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:  # as in `read`
            return self._words(error)
        return None

    def _assembled(self, round: int) -> bool:
        """Whether the parts of a checkpoint were put together, orbax's last step.

        Known beforehand: opening one that has no manifest fails in several threads at
        once, some of which tell of it on stderr.
        """
        return (self._way / str(round) / MANIFEST).is_file()

    def _prune(self) -> None:
        """Removes all but the newest and the best."""
        newest_first = self.rounds()
        known = {round: self._accuracy(round) for round in newest_first}
        scored = {r: accuracy for r, accuracy in known.items() if accuracy is not None}
        best = max(scored, key=lambda r: (scored[r], r), default=None)
        for round in newest_first[self._keep :]:
            if round != best:
                self._manager.delete(round)

    def _notes(self, round: int) -> dict[str, Any]:
        wanted = ocp.args.Composite(notes=ocp.args.JsonRestore())
        return self._manager.restore(round, args=wanted)["notes"]

    def _accuracy(self, round: int) -> float | None:
        try:
            return self._notes(round).get("accuracy")
        except jax.errors.JaxRuntimeError:
            raise
        except Exception:  # one of an earlier process that is damaged is not the best
            return None

    def notes(self, round: int) -> dict[str, Any]:
        """Reads the notes of a round's checkpoint, whatever its arrays are.

        Raises:
            CheckpointError: if they cannot be read or are no mapping.
        """
        try:
            found = self._notes(round)
        except Exception as error:  # as in `read`
            raise self._unread(round, self._words(error)) from None
        if not isinstance(found, dict):
            raise self._unread(round, "its notes are damaged.")
        return found

    def read(self, round: int, like: Any) -> Restored:
        """Reads the checkpoint of a round.

        Args:
            round: one of `rounds`.
            like: arrays of the same shapes, or their `jax.eval_shape`.

        Raises:
            CheckpointError: if it cannot be read or does not fit `like`.
        """
        if not self._assembled(round):
            raise self._unread(round, f"{MANIFEST} is missing.")
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like
        )
        on_host = ocp.RestoreArgs(restore_type=np.ndarray)
        try:
            restored = self._manager.restore(
                round,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        abstract, jax.tree.map(lambda _: on_host, abstract)
                    ),
                    notes=ocp.args.JsonRestore(),
                ),
            )
            _require_shapes(restored["state"], like)
            return Restored(round, restored["state"], restored["notes"])
        except Exception as error:  # whatever damage makes its readers raise
            raise self._unread(round, self._words(error)) from None

    def _unread(self, round: int, reason: str) -> CheckpointError:
        return CheckpointError(
            f"The checkpoint of round {round} in {self._folder} cannot be read: "
            f"{reason[:200]}"
        )

    def _words(self, error: Exception) -> str:
        """An error in one line, with the folder's own name."""
        text = str(error).replace(str(self._way), str(self._folder))
        return " ".join(text.split())

    def _failed(self, reason: str, round: int | None) -> SaveError:
        if round is not None:
            self._unreadable.add(round)
        complete = ", ".join(map(str, self.rounds()))
        which = "" if round is None else f"that of round {round}: "
        return SaveError(
            f"Cannot save a checkpoint in {self._folder}: {which}{reason[:300]}. "
            f"Complete are the checkpoints of rounds {complete or '(none)'}."
        )


def _expect(round: int, arrays: Any, notes: dict[str, Any]) -> _Written:
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arrays)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    sums = _sums(arrays) if size <= READ_BACK else None
    return _Written(round, like, notes, sums)


def _sums(arrays: Any) -> list[int]:
    """A checksum of every leaf's bytes, in the order of the leaves."""
    return [
        zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        for leaf in jax.tree.leaves(arrays)
    ]


def _uncopied() -> ocp.type_handlers.TypeHandlerRegistry:
    """Writes and reads arrays on the host.

    Orbax's own way copies them first, lest they change while they are being written.
    """
    handlers = ocp.type_handlers
    return handlers.create_type_handler_registry(
        (np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, handlers.ArrayHandler()),  # without it orbax logs a warning
    )


def _require_shapes(arrays: Any, like: Any) -> None:
    """Raises `ValueError` unless there are arrays of these shapes and types."""
    found = _shapes(arrays)
    lost = [name for name, shape in _shapes(like).items() if found.get(name) != shape]
    if lost:
        raise ValueError(f"missing or of another shape are {', '.join(lost[:3])}")


def _shapes(arrays: Any) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type by path, whatever containers the tree is made of."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(arrays)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
    return {name(path): (leaf.shape, np.dtype(leaf.dtype)) for path, leaf in leaves}
