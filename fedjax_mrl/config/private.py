"""The option `dp`: differential privacy, as `clip=1.0,noise=1.2,delta=1e-5`."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from fedjax_mrl import discovery
from fedjax_mrl.config.error import ConfigError

_EXAMPLE = "clip=1.0,noise=1.2,delta=1e-5"


class Privacy(NamedTuple):
    """What `dp` asks for.

    Attributes:
        clip: the largest norm of what a client adds to a sum.
        delta: the probability that epsilon may not hold with.
        noise: standard deviation of the noise, as a multiple of `clip`; None where an
            epsilon is given instead, for a plan.
        epsilon: that the noise is asked for.
        presence: what holding a class counts beside its mean.
    """

    clip: float
    delta: float
    noise: float | None = None
    epsilon: float | None = None
    presence: float = 1.0

    def __str__(self) -> str:
        """The words that `parse` reads."""
        order = ("clip", "noise", "epsilon", "delta", "presence")
        given = {name: getattr(self, name) for name in order}
        if self.presence == 1.0:
            given.pop("presence")
        return ",".join(f"{k}={v!r}" for k, v in given.items() if v is not None)


def parse(value: object) -> Privacy:
    """Reads the option: a text, or a mapping as in YAML.

    Raises:
        ConfigError: for unknown names, bad numbers, or what is missing.
    """
    found = _words(value)
    for name in found:
        if name not in Privacy._fields:
            raise ConfigError(discovery.unknown("part of --dp", name, Privacy._fields))
    numbers = {name: _number(name, text) for name, text in found.items()}
    missing = [name for name in ("clip", "delta") if name not in numbers]
    if missing or ("noise" in numbers) == ("epsilon" in numbers):
        raise ConfigError(
            f"--dp needs clip, delta and noise, as in {_EXAMPLE}; `plan` also takes "
            f"epsilon instead of noise. Got {value!r}."
        )
    if numbers["delta"] >= 1:
        raise ConfigError(f"--dp delta must be below 1; got {numbers['delta']!r}.")
    if not 1e-6 <= numbers["clip"] <= 1e6:
        raise ConfigError(
            "--dp clip must be between 1e-6 and 1e6, where norms are computed well; "
            f"got {numbers['clip']!r}."
        )
    if numbers.get("noise", 1.0) < 0.1:
        raise ConfigError(
            "--dp noise must be at least 0.1 (times clip): less hides nobody. Got "
            f"{numbers['noise']!r}."
        )
    return Privacy(**numbers)


def _words(value: object) -> dict[str, object]:
    """Names and values, as they were given."""
    if isinstance(value, Mapping):
        return {str(name): each for name, each in value.items()}
    if not isinstance(value, str):
        raise ConfigError(f"--dp must read as in {_EXAMPLE}; got {value!r}.")
    pairs = [word.partition("=") for word in value.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    whole = all(equals and "=" not in text for _, equals, text in pairs)
    if not whole or len(set(names)) < len(names):
        raise ConfigError(f"--dp must read as in {_EXAMPLE}; got {value!r}.")
    return {name: text for name, (_, _, text) in zip(names, pairs, strict=True)}


def _number(name: str, value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < 1e30:
        raise ConfigError(f"--dp {name} must be a number above 0; got {value!r}.")
    return number
