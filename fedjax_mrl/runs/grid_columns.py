"""The columns of swept options: in configurations, in tables and in folders' names.

A column is called as its option in a configuration (`momentum`), a hyper-parameter as
in `set` (`algorithm.alpha`, `server.max_upload_norm`).
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fedjax_mrl import config as configs
from fedjax_mrl import references
from fedjax_mrl.config import RunConfig

# Options that decide who has which examples: accuracies of several are of several
# tasks, so that none of them is the best.
SPLIT = (
    "partition",
    "num_clients",
    "held_out_clients",
    "data_seed",
    "limit_train",
    "limit_test",
    "test_fraction",
    "image_size",
)
TRIAL = ("seed", "learning_rate")  # which the runs of one program differ in
_NAMES = ("algorithm", "models", "shared_model")
_LONGEST = 60  # letters of a value in a folder's name


def apply(base: RunConfig, cell: Mapping[str, object]) -> RunConfig:
    """The configuration with the values of a cell."""
    known = configs.fields()
    settings: dict[str, Any] = {k: v for k, v in base.set if k not in cell}
    settings |= {key: value for key, value in cell.items() if key not in known}
    changes: dict[str, Any] = {k: v for k, v in cell.items() if k in known}
    return dataclasses.replace(base, **changes, set=tuple(settings.items()))


def adopt(base: RunConfig, other: RunConfig, columns: Iterable[str]) -> RunConfig:
    """The configuration with what another one has in some columns."""
    settings = dict(base.set)
    changes: dict[str, Any] = {}
    theirs = dict(other.set)
    for column in columns:
        prefix, dot, option = column.partition(".")
        if not dot:
            changes[column] = getattr(other, column)
            continue
        for key in list(settings):
            owner, _, name = key.partition(".")
            if name == option and (owner == "server") == (prefix == "server"):
                del settings[key]
        if column in theirs:
            settings[column] = theirs[column]
    return dataclasses.replace(base, **changes, set=tuple(settings.items()))


def of(names: Iterable[str]) -> list[str]:
    """The columns that options have in tables; each is one of a run's configuration.

    (Seed and learning rate have theirs in every table.)

    Example:
        >>> of(["momentum", "learning_rate", "fml.alpha"])
        ['algorithm.alpha', 'momentum']
    """
    found = set()
    for name in names:
        prefix, dot, option = name.partition(".")
        if dot and prefix != "server":
            name = f"algorithm.{option}"
        if name not in TRIAL:
            found.add(name)
    return sorted(found)


def value(config: RunConfig, column: str) -> object:
    """The value that a configuration says for a column; "" where it says none."""
    if "." in column:
        found: object = dict(config.set).get(column, "")
    else:
        found = getattr(config, column)
        if column in _NAMES:
            listed = found if isinstance(found, tuple) else (found,)
            found = tuple(references.short(str(name)) for name in listed)
        if found is None and column == "shared_dim":
            found = ""
    return shown(found)


def shown(found: object) -> object:
    """A value as tables show it: numbers as they are, anything else as a text."""
    if found is None:
        return "none"
    if isinstance(found, bool):
        return str(found).lower()
    return ",".join(found) if isinstance(found, tuple) else found


def text(value: object) -> str:
    """A value of a table as a short text; different numbers have different ones."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def suffix(config: RunConfig, names: Iterable[str]) -> str:
    """The end of a folder's name, which says what a run has in some columns.

    Example:
        >>> suffix(RunConfig(partition="dirichlet:0.1"), ["momentum", "partition"])
        '-momentum=0.9-partition=dirichlet0.1'
    """
    parts = []
    for column in sorted(names):
        said = text(value(config, column))
        if not said:
            continue  # the algorithm has no such option
        plain = re.sub(r"[^\w.+-]", "_", said.replace(":", "").replace(",", "+"))
        if len(plain) > _LONGEST:
            sha = hashlib.sha256(said.encode()).hexdigest()[:8]
            plain = f"{plain[: _LONGEST - 9]}_{sha}"
        parts.append(f"-{column}={plain}")
    return "".join(parts)


def said_in(folder: str) -> list[str]:
    """The columns that the name of a run's folder speaks of.

    Example:
        >>> said_in("fml-0-lr0.1-algorithm.alpha=0.5-momentum=0.9")
        ['algorithm.alpha', 'momentum']
    """
    found = re.findall(r"-((?:algorithm\.|server\.)?[^\W\d]\w*)=", folder)
    return [name for name in found if "." in name or name in configs.fields()]
