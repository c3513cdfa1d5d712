"""The error of this package."""


class PrivacyError(ValueError):
    """Differential privacy that cannot be had or accounted for; says what to do."""
