"""What an app's configuration says: the federation, and how its server waits.

Flower hands it over flat, with the table's name before a point:
`federation.num-clients`. A node's worker reads the same from the app's folder.
"""

import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from fedjax_mrl import config as configs
from fedjax_mrl import paths
from fedjax_mrl.config import RunConfig
from fedjax_mrl.flower.error import FlowerError

FILE = "pyproject.toml"
_PREFIX = "federation."
_SERVER = ("server-folder", "timeout", "min-clients", "attempts")


class Patience(NamedTuple):
    """How long the server waits, and for whom.

    Attributes:
        timeout: seconds that a round waits for its clients; who is later drops out.
        least: reports that a round needs, or as many as it has participants.
        attempts: how often a round is tried that has fewer.
    """

    timeout: float = 600.0
    least: int = 1
    attempts: int = 3


class Settings(NamedTuple):
    """The configuration of an app."""

    federation: RunConfig
    server_folder: pathlib.Path
    patience: Patience


def read(app: pathlib.Path) -> Settings:
    """The settings of an app's folder.

    Raises:
        FlowerError: if it is none.
        ConfigError: for options of a federation that there are not.
    """
    path = app / FILE
    try:
        with path.open("rb") as file:
            known = tomllib.load(file)["tool"]["flwr"]["app"]["config"]
    except OSError as error:
        raise FlowerError(
            f"{path} cannot be read: {error.strerror}. Give the folder that "
            "`fedjax-mrl flower new` made."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FlowerError(
            f"{path} must have a table [tool.flwr.app.config]: {error}."
        ) from None
    return of(_flat(known))


def of(known: Mapping[str, Any]) -> Settings:
    """The settings that Flower hands over, see above.

    Raises:
        FlowerError: for what there is not.
        ConfigError: for options of a federation that there are not.
    """
    own = {key: value for key, value in known.items() if not key.startswith(_PREFIX)}
    unknown = sorted(own.keys() - set(_SERVER))
    if unknown:
        raise FlowerError(
            f"[tool.flwr.app.config] has {unknown[0]!r}, which is none of "
            f"{', '.join(_SERVER)}; options of the federation stand in its table "
            "`federation`."
        )
    missing = [name for name in _SERVER if name not in own]
    if missing:
        raise FlowerError(f"[tool.flwr.app.config] lacks {missing[0]!r}.")
    return Settings(
        _federation(known),
        paths.local(str(own["server-folder"]), "server-folder"),
        Patience(
            _above("timeout", own["timeout"], 0),
            int(_above("min-clients", own["min-clients"], 1)),
            int(_above("attempts", own["attempts"], 1)),
        ),
    )


def _federation(known: Mapping[str, Any]) -> RunConfig:
    """The federation's options; those of `set` have its name before a point."""
    options: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for key, value in known.items():
        name = key.removeprefix(_PREFIX)
        if not key.startswith(_PREFIX):
            continue
        if name.startswith("set."):
            chosen[name.removeprefix("set.")] = value
        else:
            options[name] = value
    if chosen:
        options["set"] = chosen
    return without_privacy(configs.build(options, source=FILE))


def without_privacy(config: RunConfig) -> RunConfig:
    """Refuses differential privacy: all nodes know the seed that noise is drawn from.

    Raises:
        FlowerError: with the reason.
    """
    if config.privacy is not None:
        raise FlowerError(
            "--dp is for simulations: over a network every node has the federation's "
            "options and with them the seed, from which it could draw the noise again "
            "and take it away. Leave dp out."
        )
    return config


def _above(name: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FlowerError(f"{name} must be a number; got {value!r}.")
    if not least <= value < 1e9 or value == 0:
        raise FlowerError(f"{name} must be above {least or 0}; got {value!r}.")
    return float(value)


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = value
    return flat
