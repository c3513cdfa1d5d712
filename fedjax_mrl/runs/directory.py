"""The run directory: what is in it and how it is written.

Tables grow by whole lines that are flushed at once; other files appear under a
temporary name and are renamed, so that nothing is ever half-written.
"""

import csv
import errno
import fcntl
import io
import json
import os
import pathlib
import shutil
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_mrl import paths

COLUMNS = {
    "rounds.csv": (
        "round",
        "seconds",
        "participants",
        "train_loss",
        "bytes_down",
        "bytes_up",
        "flops",
        "digest",
        "dropped",
        "stragglers",
        "rejected",
    ),
    "metrics.csv": (
        "round",
        "point",
        "head",
        "clients",
        "mean_accuracy",
        "std_accuracy",
        "weighted_accuracy",
        "mean_loss",
    ),
    "clients.csv": (
        "round",
        "client",
        "architecture",
        "point",
        "head",
        "num_train",
        "num_test",
        "correct",
        "accuracy",
        "loss",
    ),
    "digests.csv": ("round", "owner", "leaf", "sha256"),
}
# What this program writes; only these are ever removed by --overwrite.
FILES = (
    "config.json",
    "environment.json",
    "partition.npz",
    "partition.png",
    *COLUMNS,
    "summary.json",
)
FOLDERS = ("checkpoints", "clients", "tensorboard")
# Of a comparison, which is a folder of run directories.
TABLES = ("comparison.csv", "comparison.md", "curves.png")
_LOCK = ".lock"
# What a file system without locks answers; EBADF is that of some over networks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF)


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message says what to do."""


class RunDirectory:
    """Writes the files of one run.

    Args:
        path: the folder; made by `create`, taken as it is by `open`.

    Attributes:
        path: the folder, with a leading `~` replaced.
        unprotected: why other processes cannot be kept out; None if they are.

    Raises:
        PathError: if `path` is none of this machine, see `paths.local`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = paths.local(path, "The run directory")
        self.unprotected: str | None = None
        self._lock: weakref.finalize | None = None

    @classmethod
    def create(
        cls, path: str | os.PathLike, *, config: str = "{}", overwrite: bool = False
    ) -> "RunDirectory":
        """Makes an empty run directory, which no other process may write.

        Args:
            path: where; parents are made too.
            config: text of config.json, the first file that is written: from then on
                the run can be resumed.
            overwrite: remove the run that is there. Other files stay.

        Raises:
            RunDirectoryError: if there is a run already, or it cannot be written.
        """
        run = cls(path)
        cls.check(path, overwrite=overwrite)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.lock()
            # Again under the lock: another process may have been faster.
            for name in cls.check(path, overwrite=overwrite):
                target = run.path / name
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            run.write_text("config.json", config)
            for name, columns in COLUMNS.items():
                with (run.path / name).open("x", encoding="utf-8", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(columns)
        except RunDirectoryError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunDirectoryError(
                f"Cannot write the run directory {str(run.path)!r}: {reason}. Choose "
                "an --out folder that you may write to."
            ) from None
        return run

    @classmethod
    def check(cls, path: str | os.PathLike, *, overwrite: bool = False) -> list[str]:
        """Names what a run left in `path`; touches nothing.

        Raises:
            RunDirectoryError: if there is a run and it is not to be replaced, or a
                comparison of several.
            PathError: if nothing can be written to such a path.
        """
        folder = paths.local(path, "The run directory", paths.RESERVED)
        try:
            paths.unusual(folder)
            compared = [name for name in TABLES if (folder / name).exists()]
            held = [name for name in (*FILES, *FOLDERS) if (folder / name).exists()]
        except paths.PathError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunDirectoryError(
                f"Cannot look into the run directory {str(folder)[:200]!r}: {reason}. "
                "Choose another --out."
            ) from None
        if compared:
            raise RunDirectoryError(
                f"{folder} holds a comparison ({', '.join(compared)}), whose runs are "
                "folders in it. Choose another --out."
            )
        if held and not overwrite:
            raise RunDirectoryError(
                f"{folder} already holds a run ({', '.join(held[:3])}). Choose another "
                "--out, or give --overwrite to replace it."
            )
        return held

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunDirectory":
        """Opens the directory of an earlier run.

        Raises:
            RunDirectoryError: if it holds none.
        """
        run = cls(path)
        if not (run.path / "config.json").is_file():
            raise RunDirectoryError(
                f"{run.path} holds no run (config.json is missing). Give the --out "
                "folder of an earlier `fedjax-mrl run`."
            )
        return run

    def lock(self, *, wait: bool = False) -> None:
        """Keeps other processes from writing; ends with this process, however it ends.

        On a file system without locks it does not, and says so in `unprotected`.

        Args:
            wait: for another process that has the lock.

        Raises:
            RunDirectoryError: if another process has the lock.
        """
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunDirectoryError(
                f"Cannot write the run directory {str(self.path)!r}: {error.strerror}."
            ) from None
        # Closed with this object at the latest.
        self._lock = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            self.unlock()
            raise RunDirectoryError(
                f"Another process is writing {self.path}. Wait for it, stop it, or "
                "choose another --out."
            ) from None
        except OSError as error:
            self.unlock()
            if error.errno not in _NO_LOCKS:
                raise RunDirectoryError(
                    f"Cannot lock the run directory {str(self.path)!r}: "
                    f"{error.strerror}."
                ) from None
            self.unprotected = (
                f"The file system of {self.path} has no locks ({error.strerror}): "
                "nothing keeps a second process from writing there, so start none."
            )

    def unlock(self) -> None:
        """Lets other processes write."""
        if self._lock is not None:
            self._lock()
            self._lock = None

    @property
    def clients(self) -> pathlib.Path:
        """The folder of client states, of a run with a store on the disk."""
        return self.path / "clients"

    @property
    def checkpoints(self) -> pathlib.Path:
        """The folder of orbax checkpoints."""
        return self.path / "checkpoints"

    @property
    def events(self) -> pathlib.Path:
        """The folder of TensorBoard's events."""
        return self.path / "tensorboard"

    def write_text(self, name: str, text: str) -> None:
        """Writes a whole file, or leaves what was there."""
        temporary = self.path / f".{name}.tmp"
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path / name)

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes a mapping as JSON."""
        self.write_text(name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def read_text(self, name: str) -> str:
        """Reads a file of the run."""
        return (self.path / name).read_text(encoding="utf-8")

    def rows(self, name: str) -> list[dict[str, str]]:
        """The whole lines of a table; half a line, as of a killed process, is none.

        Nor is a line that was damaged so much that it has no round.
        """
        columns = COLUMNS[name]
        text = (self.path / name).read_text(encoding="utf-8", errors="replace")
        lines = text[: text.rfind("\n") + 1].split("\n")[1:]
        cells = [line.split(",") for line in lines]  # no cell needs quotes
        return [
            dict(zip(columns, line, strict=True))
            for line in cells
            if len(line) == len(columns) and line[0].isdecimal()
        ]

    def cut(self, round: int, every: int = 1) -> None:
        """Cuts all tables back to what they held after a round.

        Args:
            round: the last one that stays; 0 leaves nothing.
            every: rounds between evaluations; what the end of a run evaluated
                besides goes too.
        """
        for name, columns in COLUMNS.items():
            extra = name in ("metrics.csv", "clients.csv")
            held = self.rows(name) if (self.path / name).exists() else []
            kept = [
                row
                for row in held
                if round
                and int(row["round"]) <= round
                and not (extra and int(row["round"]) % every)
            ]
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(row.values() for row in kept)
            self.write_text(name, text.getvalue())
        (self.path / "summary.json").unlink(missing_ok=True)

    def append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines to one of the tables; floats keep six significant digits."""
        with (self.path / name).open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for row in rows:
                writer.writerow([_cell(row[column]) for column in COLUMNS[name]])


class Follower(RunDirectory):
    """The run directory for a process that leaves writing to another one."""

    def lock(self, *, wait: bool = False) -> None:
        """Nothing to protect."""

    def write_text(self, name: str, text: str) -> None:
        """Another process writes it."""

    def append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Another process writes them."""

    def rows(self, name: str) -> list[dict[str, str]]:
        """Another process has them."""
        return []

    def cut(self, round: int, every: int = 1) -> None:
        """Another process cuts."""


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
