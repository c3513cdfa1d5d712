"""The run directory: which files it has and how they are written.

Tables grow by whole lines that are flushed at once; other files appear under a
temporary name and are renamed, so that nothing is ever half-written.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from fedjax_mrl import paths, whole_file
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import newcomers, tables
from fedjax_mrl.runs.error import RunDirectoryError as RunDirectoryError
from fedjax_mrl.runs.lock import Lock
from fedjax_mrl.runs.tables import COLUMNS as COLUMNS

# What this program writes; only these are ever removed by --overwrite.
FILES = (
    "config.json",
    "environment.json",
    "tasks.json",
    "partition.npz",
    "partition.png",
    "client_names.csv",
    *COLUMNS,
    "summary.json",
    *newcomers.NAMES.values(),
)
FOLDERS = ("checkpoints", "clients", "tensorboard")
# Of a comparison, which is a folder of run directories.
TABLES = ("comparison.csv", "comparison.md", "curves.png")
_LISTED = 10  # runs of a comparison that a message names


class RunDirectory:
    """Writes the files of one run.

    Args:
        path: the folder; made by `create`, taken as it is by `open`.

    Attributes:
        path: the folder, with a leading `~` replaced.

    Raises:
        PathError: if `path` is none of this machine, see `paths.local`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = paths.local(path, "The run directory")
        self._lock = Lock(self.path)

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
                _remove(run.path / name)
            run.write_text("config.json", config)
            for name in COLUMNS:
                with (run.path / name).open("x", encoding="utf-8", newline="") as file:
                    file.write(tables.header(name))
        except RunDirectoryError:
            run.unlock()
            raise
        except (OSError, ValueError) as error:
            run.unlock()
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
            is_there = lambda name: os.path.lexists(folder / name)
            compared = [name for name in TABLES if is_there(name)]
            present = [name for name in (*FILES, *FOLDERS) if is_there(name)]
            more = [path for text in newcomers.OTHERS for path in folder.glob(text)]
            present += sorted(path.name for path in more)
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
        if present and not overwrite:
            raise RunDirectoryError(
                f"{folder} already holds a run ({', '.join(present[:3])}). Choose "
                "another --out, or give --overwrite to replace it."
            )
        return present

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunDirectory":
        """Opens the directory of an earlier run.

        Raises:
            RunDirectoryError: if it holds none.
        """
        run = cls(path)
        if not (run.path / "config.json").is_file():
            raise RunDirectoryError(_no_run(run.path))
        return run

    @property
    def unprotected(self) -> str | None:
        """Why other processes cannot be kept out; None if they are."""
        return self._lock.unprotected

    def lock(self, *, wait: bool = False) -> None:
        """Keeps other processes from writing; ends with this process, however it ends.

        On a file system without locks it does not, and says so in `unprotected`.

        Args:
            wait: for another process that has the lock.

        Raises:
            RunDirectoryError: if another process has the lock.
        """
        self._lock.acquire(wait=wait)

    def unlock(self) -> None:
        """Lets other processes write."""
        self._lock.release()

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
        whole_file.write(self.path / name, text.encode())

    def write_json(self, name: str, values: Mapping[str, object]) -> None:
        """Writes a mapping as JSON."""
        self.write_text(name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def read_text(self, name: str) -> str:
        """Reads a file of the run."""
        return (self.path / name).read_text(encoding="utf-8")

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            OSError: if there is none.
            ConfigError: for a damaged one, whose path it names.
        """
        text = self.read_text("config.json")
        return RunConfig.from_json(text, str(self.path / "config.json"))

    def rows(self, name: str) -> list[dict[str, str]]:
        """The lines of a table that can be read, see `tables.sound`."""
        return self.sound(name)[0]

    def sound(self, name: str) -> tuple[list[dict[str, str]], int]:
        """The lines of a table that can be read, and how many others it has.

        Raises:
            OSError: if the file cannot be read.
        """
        path = self.path / name
        return tables.sound(name, path.read_text(encoding="utf-8", errors="replace"))

    def cut(self, round: int, every: int = 1) -> None:
        """Cuts all tables back to what they held after a round.

        Args:
            round: the last one that stays; 0 leaves nothing.
            every: rounds between evaluations; what the end of a run evaluated
                besides goes too.
        """
        for name in COLUMNS:
            path = self.path / name
            text = path.read_text("utf-8", "replace") if path.exists() else ""
            rows = tables.parse(name, text)
            self.write_text(name, tables.up_to(name, rows, round, every))
        (self.path / "summary.json").unlink(missing_ok=True)

    def append(self, name: str, rows: Sequence[tables.Row]) -> None:
        """Adds lines to one of the tables; floats keep six significant digits."""
        tables.append(self.path / name, rows)


def require_no_part(path: pathlib.Path) -> None:
    """Refuses a file of a run as the place of another file.

    Raises:
        RunDirectoryError: if a run writes it itself; tables of newcomers it does not.
    """
    parts = {*FILES, *FOLDERS} - {*newcomers.NAMES.values()}
    whole = path.parent.resolve() / path.name
    for folder in whole.parents:
        first = whole.relative_to(folder).parts[0]
        if first in parts and (folder / "config.json").exists():
            raise RunDirectoryError(
                f"{path} is a part of the run in {folder} and is not replaced; choose "
                "another file."
            )


def _remove(path: pathlib.Path) -> None:
    """Removes a file or a folder; of a link only the link, what it leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _no_run(path: pathlib.Path) -> str:
    """Says that a folder is no run directory, and which in it are."""
    try:
        inside = sorted(each.parent.name for each in path.glob("*/config.json"))
        compared = any((path / name).exists() for name in TABLES)
    except OSError:
        inside, compared = [], False
    if not inside:
        return (
            f"{path} holds no run (config.json is missing). Give the --out folder of "
            "an earlier `fedjax-mrl run`."
        )
    what = "a comparison, whose runs are" if compared else "no run, but its folders do:"
    listed = ", ".join(inside[:_LISTED]) + ", ..." * (len(inside) > _LISTED)
    return f"{path} holds {what} {listed}. Give one of them, as in {path / inside[0]}."


class Follower(RunDirectory):
    """The run directory for a process that leaves writing to another one."""

    def lock(self, *, wait: bool = False) -> None:
        """Nothing to protect."""

    def write_text(self, name: str, text: str) -> None:
        """Another process writes it."""

    def append(self, name: str, rows: Sequence[tables.Row]) -> None:
        """Another process writes them."""

    def sound(self, name: str) -> tuple[list[dict[str, str]], int]:
        """Another process has them."""
        return [], 0

    def cut(self, round: int, every: int = 1) -> None:
        """Another process cuts."""
