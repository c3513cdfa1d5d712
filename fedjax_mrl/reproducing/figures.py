"""The figures that a preset quotes: the paper's, and those measured before.

Every message names the file and the key, so that a preset of one's own can be mended.
"""

import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import discovery, references
from fedjax_mrl.config import ConfigError


class Published(NamedTuple):
    """A figure of the paper, in per cent.

    Attributes:
        value: the accuracy.
        verified: whether it was read in print; else it is quoted from memory.
    """

    value: float
    verified: bool


class Measured(NamedTuple):
    """A figure that this project measured, in per cent.

    Attributes:
        mean: over repeats.
        sd: standard deviation; None of a single one.
        repeats: how many there were.
    """

    mean: float
    sd: float | None
    repeats: int


class Names(NamedTuple):
    """What a figure may be of.

    Attributes:
        settings: of a preset.
        methods: of a preset; each as a file may write it (one of the user's own by its
            reference or its last name) -> its name in tables.
    """

    settings: Collection[str]
    methods: Mapping[str, str]


def published(
    found: Mapping[str, Any], names: Names, source: str
) -> dict[str, dict[str, Published]]:
    """The paper's figures, those that were read and those from memory.

    Raises:
        ConfigError: for a setting or method that the preset has not, or no number.
    """
    paper: dict[str, dict[str, Published]] = {}
    for key, verified in (("paper", True), ("unverified", False)):
        each = by_method(found.get(key, {}), names, f"{source}: {key}")
        for setting, method, value, place in each:
            held = Published(number(value, place), verified)
            paper.setdefault(setting, {})[method] = held
    return paper


def measured(given: Any, names: Names, source: str) -> dict[str, dict[str, Measured]]:
    """What was measured before.

    Raises:
        ConfigError: as of `published`.
    """
    found: dict[str, dict[str, Measured]] = {}
    for setting, method, value, place in by_method(given, names, source):
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
            raise ConfigError(
                f"{place} takes [mean, sd or null, repeats] for each method; got "
                f"{value!r}."
            )
        mean, sd, repeats = value
        found.setdefault(setting, {})[method] = Measured(
            number(mean, place),
            None if sd is None else number(sd, place),
            int(number(repeats, place)),
        )
    return found


def by_method(given: Any, names: Names, source: str) -> list[tuple[str, str, Any, str]]:
    """Setting, method and value of each figure, and how messages call its place.

    Raises:
        ConfigError: for a setting or method that the preset has not.
    """
    found = []
    for setting, values in mapping(given, source).items():
        known("setting", setting, names.settings, source)
        for method, value in mapping(values, f"{source}.{setting}").items():
            place = f"{source}.{setting}"
            known("algorithm", method, names.methods, place)
            short = names.methods[method]
            found.append((setting, short, value, f"{place}.{method}"))
    return found


def numbers(
    given: Any, names: Collection[str] | None, source: str, most: float = math.inf
) -> dict[str, float]:
    """Numbers from 0 to `most` by setting, or by method (`names` is None).

    Paces may be of methods that a preset has not: tables of them are shared.

    Raises:
        ConfigError: for a setting that there is not, or no number.
    """
    found = {}
    for name, value in mapping(given, source).items():
        if names is not None:
            known("setting", name, names, source)
        key = references.short(str(name)) if names is None else name
        found[key] = number(value, f"{source}.{name}")
        if not 0 <= found[key] <= most:
            to = "at least 0" if math.isinf(most) else f"from 0 to {most:g}"
            raise ConfigError(f"{source}.{name} must be {to}; got {value!r}.")
    return found


def number(value: Any, place: str) -> float:
    """A number.

    Raises:
        ConfigError: for anything else, as a text or yes.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value):
        raise ConfigError(f"{place} must be a number; got {value!r}.")
    return float(value)


def whole(value: Any, place: str, least: float = -math.inf) -> int:
    """A whole number.

    Raises:
        ConfigError: for anything else, or a smaller one than `least`.
    """
    found = number(value, place)
    if not found.is_integer() or found < least:
        more = "" if math.isinf(least) else f", at least {least}"
        raise ConfigError(f"{place} must be a whole number{more}; got {value!r}.")
    return int(value)


def folder_names(given: Any, source: str) -> Mapping[str, Any]:
    """A mapping of names that folders have, too.

    Raises:
        ConfigError: if it is none, or one of its names cannot be a folder's.
    """
    for name in mapping(given, source):
        text = name if isinstance(name, str) else ""
        if not text or text == ".." or pathlib.PurePath(text).name != text:
            raise ConfigError(
                f"{source}: a name must be text and fit for a folder, so without /, in "
                f"quotes if it is a number; got {name!r}."
            )
    return given


def known(kind: str, name: object, valid: Collection[str], source: str) -> None:
    """Refuses a name that there is not."""
    if name not in valid:
        raise ConfigError(f"{source}: {discovery.unknown(kind, str(name), valid)}")


def mapping(value: Any, source: str) -> Mapping[str, Any]:
    """The value, which must be a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{source} must hold `key: value` pairs; got {value!r}.")
    return value
