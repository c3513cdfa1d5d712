"""What a node or the server refuses, and why a federation over a network ends."""


class FlowerError(ValueError):
    """A deployment that cannot be used; the message says what to do."""


class Refused(ValueError):
    """A message that does not fit; the message says what is wrong with it."""


class Ended(RuntimeError):
    """A federation over a network that cannot go on; it can be resumed."""
