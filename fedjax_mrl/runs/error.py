"""The error of a run directory."""

import pathlib
from collections.abc import Mapping


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message says what to do."""


class BusyError(RunDirectoryError):
    """A run directory that another process is writing."""


class InTheWay(RunDirectoryError):
    """A folder of a comparison that holds other results.

    Args:
        message: says what to do.
        problems: folders of runs -> why each does not belong to the comparison.
    """

    def __init__(self, message: str, problems: Mapping[pathlib.Path, str]) -> None:
        super().__init__(message)
        self.problems = problems
