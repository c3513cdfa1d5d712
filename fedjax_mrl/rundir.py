"""The run directory: what is in it and how it is written.

Tables grow by whole lines that are flushed at once; other files appear under a
temporary name and are renamed, so that nothing is ever half-written.
"""

import csv
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

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
FOLDERS = ("checkpoints", "tensorboard")


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message says what to do."""


class RunDirectory:
    """Writes the files of one run.

    Args:
        path: the folder; made by `create`, taken as it is by `open`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = pathlib.Path(path)

    @classmethod
    def create(
        cls, path: str | os.PathLike, *, overwrite: bool = False
    ) -> "RunDirectory":
        """Makes an empty run directory.

        Args:
            path: where; parents are made too.
            overwrite: remove the run that is there. Other files stay.

        Raises:
            RunDirectoryError: if there is a run already, or it cannot be written.
        """
        run = cls(path)
        held = cls.check(path, overwrite=overwrite)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            for name in held:
                target = run.path / name
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            for name, columns in COLUMNS.items():
                with (run.path / name).open("x", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(columns)
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
            RunDirectoryError: if there is a run and it is not to be replaced.
        """
        folder = pathlib.Path(path)
        try:
            held = [name for name in (*FILES, *FOLDERS) if (folder / name).exists()]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunDirectoryError(
                f"Cannot look into the run directory {str(folder)[:200]!r}: {reason}. "
                "Choose another --out."
            ) from None
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

    @property
    def checkpoints(self) -> pathlib.Path:
        """The folder of orbax checkpoints."""
        return self.path / "checkpoints"

    def write_text(self, name: str, text: str) -> None:
        """Writes a whole file, or leaves what was there."""
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path / name)

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes a mapping as JSON."""
        self.write_text(name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def read_text(self, name: str) -> str:
        """Reads a file of the run."""
        return (self.path / name).read_text(encoding="utf-8")

    def append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines to one of the tables; floats keep six significant digits."""
        with (self.path / name).open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for row in rows:
                writer.writerow([_cell(row[column]) for column in COLUMNS[name]])


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
