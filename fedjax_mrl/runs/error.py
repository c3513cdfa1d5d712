"""The error of a run directory."""


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message says what to do."""


class BusyError(RunDirectoryError):
    """A run directory that another process is writing."""
