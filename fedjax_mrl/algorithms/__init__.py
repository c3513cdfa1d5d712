"""Federated methods, one file each; a name in a module's `__all__` is a method.

Each is a function `name(setup, *, hyper-parameters) -> protocol.Algorithm`.
"""

import inspect
from collections.abc import Callable
from typing import Any

from fedjax_mrl import discovery
from fedjax_mrl.protocol import Algorithm, Setup


def names() -> list[str]:
    """The names of all algorithms."""
    return list(discovery.find(__name__))


def get(name: str) -> Callable[..., Algorithm]:
    """Returns the constructor of the algorithm `name`.

    Raises:
        ValueError: for an unknown name, with the nearest valid one.
    """
    return discovery.get(__name__, name, "algorithm")


def hyperparameters(name: str) -> dict[str, Any]:
    """The hyper-parameters of the algorithm `name` and their defaults."""
    parameters = inspect.signature(get(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build(name: str, setup: Setup, **options: Any) -> Algorithm:
    """Builds the algorithm `name`.

    Raises:
        ValueError: for an unknown name, an unknown hyper-parameter (with the
            nearest valid one), or a value the algorithm refuses.
    """
    valid = hyperparameters(name)
    for option in options:
        if option not in valid:
            kind = f"hyper-parameter of {name}"
            raise ValueError(discovery.unknown(kind, option, valid or ["(none)"]))
    return get(name)(setup, **options)
