"""The error of a configuration that cannot be run."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what to change."""
