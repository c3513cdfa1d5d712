"""The error of data that cannot be used."""


class DatasetError(ValueError):
    """The user's data cannot be used; says what must hold, what is, what to do."""


class MissingError(DatasetError):
    """Nothing of a data set is there; says how to get it."""
