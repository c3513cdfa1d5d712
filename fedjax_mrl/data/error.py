"""The error of data that cannot be used."""


class DatasetError(ValueError):
    """The user's data cannot be used; says what must hold, what is, what to do."""
