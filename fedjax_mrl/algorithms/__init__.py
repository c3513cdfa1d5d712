"""Federated methods, one file each; a name in a module's `__all__` is a method.

Each is a function `name(setup, *, hyper-parameters) -> protocol.Algorithm`.
"""

import inspect
from collections.abc import Callable
from typing import Any

from fedjax_mrl import discovery, references
from fedjax_mrl.protocol import Algorithm, Setup


def names() -> list[str]:
    """The names of all algorithms."""
    return list(discovery.find(__name__))


Method = Callable[..., Algorithm]


def get(name: str | Method) -> Method:
    """Returns the constructor of the algorithm `name`, or of one of the user's own.

    Args:
        name: of a method of this library, or a reference (`references`); a constructor
            is returned as it is.

    Raises:
        ValueError: for an unknown name, with the nearest valid one, or a reference
            that leads nowhere or to no function.
    """
    if not isinstance(name, str):
        return _callable(name, name)
    if references.is_reference(name):
        return _callable(name, references.load(name))
    try:
        return discovery.get(__name__, name, "algorithm")
    except ValueError as error:
        raise ValueError(f"{error}{references.beside(name)}") from None


def _callable(name: object, found: Any) -> Method:
    if not callable(found):
        raise ValueError(
            "An algorithm must be a name, or a function of (setup, *, "
            f"hyper-parameters) that returns a fedjax_mrl.Algorithm; {name} is "
            f"{type(found).__name__}."
        )
    return found


def hyperparameters(name: str | Method) -> dict[str, Any]:
    """Returns the hyper-parameters of an algorithm with their defaults."""
    parameters = inspect.signature(get(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build(name: str | Method, setup: Setup, **options: Any) -> Algorithm:
    """Builds an algorithm.

    Args:
        name: as of `get`.
        setup: what it is built from.
        **options: its hyper-parameters.

    Raises:
        ValueError: for an unknown name, an unknown hyper-parameter (with the nearest
            valid one), a value the algorithm refuses, or a function that makes none.
    """
    method = get(name)
    known = name if isinstance(name, str) else getattr(name, "__name__", "it")
    valid = hyperparameters(method)
    for option in options:
        if option not in valid:
            kind = f"hyper-parameter of {references.short(known)}"
            raise ValueError(discovery.unknown(kind, option, valid or ["(none)"]))
    ours = getattr(method, "__module__", "").startswith(f"{__name__}.")
    if ours:
        made = method(setup, **options)
    else:
        takes = "(setup) and its hyper-parameters"
        made = references.call(method, takes, setup, **options)
    if not isinstance(made, Algorithm):
        raise ValueError(
            f"{known} must return a fedjax_mrl.Algorithm(server, client, heads); it "
            f"returned {type(made).__name__}."
        )
    return made
