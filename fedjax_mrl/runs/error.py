"""The error of a run directory."""


class RunDirectoryError(ValueError):
    """A run directory that cannot be used; the message says what to do."""
