"""The options that are in effect in a run: those that it was given, and defaults.

A configuration may leave an option of its algorithm or of the server out, or say its
default; the run is the same.
"""

import dataclasses

from fedjax_mrl import algorithms
from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs import grid_columns
from fedjax_mrl.simulation.settings import RoundConfig

SETTINGS = ("set", "shared_dim")  # which say options; two may say one thing
_SERVER = ("reject_nonfinite", "max_upload_norm")


def same(old: RunConfig, new: RunConfig) -> bool:
    """Whether the same options are in effect in both, however each says them."""
    return options(old) == options(new)


def as_said(config: RunConfig, other: RunConfig) -> RunConfig:
    """A configuration whose options are said as another says them."""
    theirs = {name: getattr(other, name) for name in SETTINGS}
    return dataclasses.replace(config, **theirs)


def options(config: RunConfig) -> dict[str, object]:
    """What `set` and `shared_dim` come to, by key of `set`.

    Of an algorithm that is not found by its name, a function of the user's, only what
    it was given.
    """
    defaults = RoundConfig._field_defaults
    found: dict[str, object] = {f"server.{name}": defaults[name] for name in _SERVER}
    try:
        known = algorithms.hyperparameters(config.algorithm)
    except ValueError:
        known = {}
    found |= {f"algorithm.{name}": default for name, default in known.items()}
    found |= dict(config.set)
    if config.shared_dim is not None:
        found["algorithm.shared_dim"] = config.shared_dim
    return found


def value(config: RunConfig, column: str) -> object:
    """The value of a run in a column of a table; "" where it has no such option."""
    if "." not in column and column != "shared_dim":
        return grid_columns.value(config, column)
    key = "algorithm.shared_dim" if column == "shared_dim" else column
    return grid_columns.shown(options(config).get(key, ""))
