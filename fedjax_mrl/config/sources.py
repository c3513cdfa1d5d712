"""Where options come from: YAML files, presets and the words of `--set`."""

import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from fedjax_mrl import discovery
from fedjax_mrl.config import values
from fedjax_mrl.config.error import ConfigError

_PRESETS = pathlib.Path(__file__).parent.parent / "presets"


def read_yaml(path: str | pathlib.Path) -> Mapping[str, Any]:
    """Reads a YAML file of options.

    Raises:
        ConfigError: if it cannot be read or is not a mapping.
    """
    try:
        text = values.local(path, "--config").read_text(encoding="utf-8")
        options = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(
            f"Cannot read the configuration {path}: {error.strerror}."
        ) from None
    except ConfigError:
        raise
    # The parser lets KeyError, AttributeError and more through, as for `!!bool x`.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} must be a YAML file: {reason}.") from None
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"{path} must hold `key: value` pairs; got {type(options).__name__}."
        )
    return options


def presets() -> dict[str, pathlib.Path]:
    """The named configurations that come with the package."""
    return {path.stem: path for path in sorted(_PRESETS.glob("*.yaml"))}


def read_preset(name: str) -> Mapping[str, Any]:
    """Options of the preset `name`.

    Raises:
        ConfigError: for an unknown preset, with the nearest valid one.
    """
    if name not in presets():
        raise ConfigError(discovery.unknown("preset", name, presets()))
    return read_yaml(presets()[name])


def parse_setting(text: str) -> tuple[str, Any]:
    """Parses one `NAME=VALUE` of --set; the value is read as YAML.

    Raises:
        ConfigError: without an equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(
            "--set takes algorithm.NAME=VALUE, as in --set "
            f"algorithm.fine_weight=2; got {text!r}."
        )
    try:
        return name, yaml.safe_load(value)
    except Exception:  # as in `read_yaml`
        return name, value
