"""The error of a report."""


class ReportError(ValueError):
    """A report that cannot be made; the message says what to do."""
