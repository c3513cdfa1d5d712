"""States of more clients than memory holds, one file for each that took part.

A state is never written over: each version has a file of its own, and a checkpoint
holds the version of every client. So whenever a process ends, the files of every
checkpoint are there. Versions that no checkpoint holds are removed when there is a
newer one.
"""

import concurrent.futures
import itertools
import os
import pathlib
import secrets
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import array_files
from fedjax_mrl.protocol import Tree
from fedjax_mrl.stores.host import Rows, RowStore

WAITING = 64  # states in memory that are still being written


class FileRows(Rows):
    """Rows in files, written and read ahead by other threads.

    Args:
        number: N, of rows.
        fresh: as of `Rows`.
        folder: of the files, made when the first is written. Other rows may have
            theirs there too, of this process or of another one.

    Raises:
        OSError: by `put` or `save`, if an earlier state could not be written; by
            `take`, if a file is missing or damaged.
    """

    def __init__(
        self,
        number: int,
        fresh: Callable[[np.ndarray], Tree],
        folder: pathlib.Path,
    ) -> None:
        super().__init__(number, fresh)
        self._folder = folder
        # Numbers that nobody else gives, so that no file is ever written over.
        self._numbers = itertools.count(1 + (secrets.randbits(42) << 20))
        self._version = np.zeros(number, np.int64)  # 0 is the first state
        self._newest = 0
        self._saved: dict[int, np.ndarray] = {}  # round -> versions of its checkpoint
        self._files: set[tuple[int, int]] = (
            set()
        )  # row, version; written by this object
        self._writing: dict[int, tuple[list, concurrent.futures.Future]] = {}
        self._reading: dict[tuple[int, int], concurrent.futures.Future] = {}
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._reader = concurrent.futures.ThreadPoolExecutor(1)

    def written(self, rows: np.ndarray) -> np.ndarray:
        """[R] bool, whether a state was put there."""
        rows = np.asarray(rows)
        inside = rows < self.number
        return inside & (self._version[np.where(inside, rows, 0)] > 0)

    def put(self, rows: np.ndarray, values: Tree) -> None:
        """Begins to write states [R, ...]."""
        self._newest = next(self._numbers)
        super().put(rows, values)
        self._finish(keep=WAITING)

    def save(self, round: int) -> Tree:
        """The versions [N]; all of them are in their files when this returns."""
        self._finish(keep=0)
        self._saved[round] = self._version.copy()
        return self._version.copy()

    def restore(self, saved: Tree) -> "FileRows":
        """These rows with the versions that `save` returned."""
        self._version = np.array(saved, np.int64)
        return self

    def prefetch(self, rows: np.ndarray) -> None:
        """Begins to read states."""
        for row in np.asarray(rows)[self.written(rows)].tolist():
            key = row, int(self._version[row])
            if row not in self._writing and key not in self._reading:
                self._reading[key] = self._reader.submit(_read, self._path(*key))

    def prune(self, rounds: Sequence[int]) -> None:
        """Removes files that neither these rounds' checkpoints nor the state need.

        Files of an earlier process stay: some checkpoint may need them.
        """
        self._saved = {r: v for r, v in self._saved.items() if r in rounds}
        needed = [self._version, *self._saved.values()]
        kept = {(row, int(v[row])) for row, _ in self._files for v in needed}
        for key in self._files - kept:
            self._path(*key).unlink(missing_ok=True)
        self._files &= kept

    def _path(self, row: int, version: int) -> pathlib.Path:
        return self._folder / f"{row}-{version}.npz"

    def _get(self, row: int) -> list[np.ndarray]:
        if row in self._writing:
            return self._writing[row][0]
        key = row, int(self._version[row])
        reading = self._reading.pop(key, None)
        return reading.result() if reading else _read(self._path(*key))

    def _set(self, row: int, leaves: list[np.ndarray]) -> None:
        before = row, int(self._version[row])
        self._reading.pop(before, None)
        self._version[row] = self._newest
        if row in self._writing:  # in order: one thread writes
            self._writing.pop(row)[1].result()
        self._files.add((row, self._newest))
        held = any(saved[row] == before[1] for saved in self._saved.values())
        useless = before in self._files and not held
        task = self._writer.submit(
            _write,
            self._path(row, self._newest),
            leaves,
            instead_of=self._path(*before) if useless else None,
        )
        self._writing[row] = leaves, task
        if useless:
            self._files.remove(before)

    def _finish(self, keep: int) -> None:
        """Waits until at most `keep` states are still being written."""
        done = [row for row, (_, task) in self._writing.items() if task.done()]
        late = [row for row in self._writing if row not in done]
        for row in (*done, *late[: max(0, len(late) - keep)]):
            task = self._writing[row][1]
            task.result()  # raises what went wrong; the state stays in memory
            del self._writing[row]


class DiskStore(RowStore):
    """Rows in files.

    Args:
        mesh: the devices that states are split over.
        folder: of the files, with a folder for each stack.
    """

    def __init__(self, mesh: Mesh, folder: pathlib.Path) -> None:
        super().__init__(mesh)
        self._folder = folder

    def create(self, name: str, number: int, fresh: Callable) -> FileRows:
        """Makes rows, of which none has a file yet."""
        return FileRows(number, fresh, self._folder / name)


def _write(
    path: pathlib.Path,
    leaves: Sequence[np.ndarray],
    instead_of: pathlib.Path | None,
) -> None:
    """Writes a state whole, and then removes the file of one that it replaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, *leaves)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if instead_of is not None:
        instead_of.unlink(missing_ok=True)


def _read(path: pathlib.Path) -> list[np.ndarray]:
    """The leaves of a state; the file's own checksums tell whether it is whole."""
    try:
        with (
            array_files.reading(),
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as data,
        ):
            return [data[f"arr_{number}"] for number in range(len(data.files))]
    except (OSError, array_files.DamagedError) as error:
        text = f"The state of a client in {path} cannot be read: {error}"
        raise OSError(text) from None
