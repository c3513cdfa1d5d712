"""Values of options: converted to an option's type and checked against its limits.

What an option takes stands in its `dataclasses.Field`: the type, and in the metadata
`low`, `high` and the metavar.
"""

import dataclasses
import math
import os
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from fedjax_mrl import paths, references
from fedjax_mrl.config import private
from fedjax_mrl.config.error import ConfigError

# A value of `--set`.
Setting = bool | int | float | str
_LARGEST = 1e300  # of a number; NaN is not below it


def check(field: dataclasses.Field, value: Any) -> Any:
    """Converts a value to the field's type and checks its range."""
    kinds = typing.get_args(field.type) or (field.type,)
    optional = types.NoneType in kinds
    if value is None or (optional and value == "none"):
        if optional:
            return None
        raise ConfigError(f"{flag(field)} needs a value.")
    if field.name in ("models", "strategies"):
        names = _names(field, value)
        return tuple(map(code, names)) if field.name == "models" else names
    if field.name == "set":
        return _settings(value)
    if field.name == "dp":
        return str(private.parse(value))
    kind = next(k for k in kinds if k is not types.NoneType)
    assert isinstance(kind, type), field.name
    converted = _convert(field, kind, value)
    if field.metadata.get("metavar") == "DIR":
        return str(local(converted, flag(field)))
    if field.name in ("algorithm", "shared_model"):
        return code(converted)
    if field.name == "dataset" and references.is_data_path(converted):
        return os.path.normpath(local(converted, flag(field)).absolute())
    if field.name == "partition" and converted.startswith("file:"):
        return f"file:{local(converted.removeprefix('file:'), flag(field))}"
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if (low is not None and converted < low) or (high is not None and converted > high):
        limits = f"at least {low}" + (f" and at most {high}" if high else "")
        raise ConfigError(f"{flag(field)} must be {limits}; got {converted}.")
    return converted


def wrong_setting(key: object) -> str:
    return (
        "A key of --set must read algorithm.NAME or server.NAME, as in --set "
        f"algorithm.fine_weight=2; got {key!r}."
    )


def local(text: str | pathlib.Path, flag: str) -> pathlib.Path:
    try:
        return paths.local(text, flag)
    except paths.PathError as error:
        raise ConfigError(str(error)) from None


def code(text: str) -> str:
    """A name; of the user's own code, one that holds whatever the folder is."""
    try:
        return references.absolute(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def flag(field: dataclasses.Field) -> str:
    return "--" + field.name.replace("_", "-")


def _convert(field: dataclasses.Field, kind: type, value: Any) -> Any:
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    wrong = ConfigError(
        f"{flag(field)} must be {words.get(kind, 'text')}; got {value!r}."
    )
    if kind is bool:
        known = {"true": True, "false": False, "yes": True, "no": False}
        result = known.get(str(value).lower())
        if result is None:
            raise wrong
        return result
    if isinstance(value, (bool, list, tuple, Mapping)):
        raise wrong
    if kind is str:
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if not math.isfinite(number):
        raise wrong
    if kind is float:
        return number
    if number != int(number):
        raise wrong
    if abs(number) > 2**53:  # those above are not all numbers of JSON
        raise ConfigError(f"{flag(field)} must be at most {2**53}; got {value!r}.")
    return int(number)


def _settings(value: Any) -> tuple[tuple[str, Setting], ...]:
    """Checks names and values of `set`; which there are, the algorithm knows."""
    settings = {key: _number(setting) for key, setting in dict(value).items()}
    for key, setting in settings.items():
        prefix, _, name = str(key).partition(".")
        if not isinstance(key, str) or not prefix or not name:
            raise ConfigError(wrong_setting(key))
        finite = not isinstance(setting, (int, float)) or abs(setting) <= _LARGEST
        if not (isinstance(setting, (bool, int, float, str)) and finite):
            raise ConfigError(
                f"--set {key} must be a finite number, true, false or text; got "
                f"{setting!r}."
            )
    return tuple(settings.items())


def _names(field: dataclasses.Field, value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise ConfigError(
            f"{flag(field)} must be a list of names, as in cnn1,cnn2; got {value!r}."
        )
    names = tuple(str(name).strip() for name in names)
    if names in ((), ("",)) and field.default == ():
        return ()
    if not names or not all(names):
        raise ConfigError(
            f"{flag(field)} must name at least one, as in cnn1,cnn2; got {value!r}."
        )
    return names


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; take it as the number it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
