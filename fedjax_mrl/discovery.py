"""Finds algorithms, models, datasets and partitions by looking at the files.

There is no registry to edit: a module of the package says in `__all__` what it
offers, and its file lying in the folder is what makes it available. A trailing
underscore (a Python keyword as a name, `class_`) is not part of the name.
"""

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Container, Iterable
from typing import Any


@functools.cache
def find(package: str) -> dict[str, Any]:
    """Maps every name that the modules of `package` export to its value.

    Args:
        package: absolute name of a package whose modules define `__all__`.

    Returns:
        Name to value, sorted by name.

    Raises:
        ValueError: if two modules export the same name.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for attribute in getattr(module, "__all__", ()):
            name = attribute.rstrip("_")
            if name in found:
                raise ValueError(
                    f"Names in {package} must be unique, but {name!r} is exported by "
                    f"both {origin[name]} and {info.name}; rename one of them."
                )
            found[name], origin[name] = getattr(module, attribute), info.name
    return dict(sorted(found.items()))


def get(package: str, name: str, kind: str) -> Any:
    """Returns what `package` exports under `name`.

    Raises:
        ValueError: for an unknown name, with the nearest valid one.
    """
    values = find(package)
    if name not in values:
        raise ValueError(unknown(kind, name, values))
    return values[name]


def unused(name: str, taken: Container[str]) -> str:
    """The name, or where it is taken the first of name-2, name-3 and so on that is not.

    Example:
        >>> unused("Net", {"mlp"}), unused("Net", {"Net", "Net-2"})
        ('Net', 'Net-3')
    """
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Words the answer to a name that does not exist, with the nearest that does."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no {kind} {name!r}.{hint} Valid: {', '.join(valid)}."
