"""The error of exporting."""


class ExportError(ValueError):
    """A model that cannot be exported or read; the message says what to do."""
