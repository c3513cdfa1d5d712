"""The preset of a published table or figure, read from a YAML file.

A file of `presets/` is found by being there. docs/reproduce.md says what its keys mean.
"""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import config as configs
from fedjax_mrl import discovery
from fedjax_mrl.config import ConfigError

_FOLDER = pathlib.Path(__file__).parent / "presets"
PICTURES = ("table", "curves", "clients", "sweep")


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


class Cells(NamedTuple):
    """Runs that are listed together: all combinations of what is named.

    Attributes:
        settings: names of configurations.
        algorithms: names of methods.
        seeds: of training.
        grid: swept options and their values, as of `compare`.
    """

    settings: tuple[str, ...]
    algorithms: tuple[str, ...]
    seeds: tuple[int, ...]
    grid: Mapping[str, Sequence[object]]


class Scale(NamedTuple):
    """A preset at one size.

    Attributes:
        name: `laptop` or `full`.
        differs: how it differs from the paper, in words.
        settings: name of a configuration -> its options.
        cells: what is run.
        time: how the seconds were found, in words.
        seconds: method, or `other` -> seconds of a round in which participants see
            40,000 training images.
        images: training images of all clients together.
        expected: setting -> method -> what was measured.
        target: setting -> accuracy whose first reaching is reported.
    """

    name: str
    differs: str
    settings: Mapping[str, Mapping[str, Any]]
    cells: tuple[Cells, ...]
    time: str
    seconds: Mapping[str, float]
    images: int
    expected: Mapping[str, Mapping[str, Measured]]
    target: Mapping[str, float]


class Preset(NamedTuple):
    """A table or figure of a paper.

    Attributes:
        name: of its file.
        title: a phrase.
        repeats: which table or figure of which paper it repeats.
        source: where the paper's figures come from.
        hardware: what the times are for.
        picture: one of `PICTURES`.
        versus: the method from which `clients` pictures and tables take differences.
        heads: whether every inference mode has a row, or the headline alone.
        paper: setting -> method -> the paper's figure.
        scales: by name.
    """

    name: str
    title: str
    repeats: str
    source: str
    hardware: str
    picture: str
    versus: str
    heads: bool
    paper: Mapping[str, Mapping[str, Published]]
    scales: Mapping[str, Scale]


def names() -> list[str]:
    """The presets that come with the package."""
    return [path.stem for path in sorted(_FOLDER.glob("*.yaml"))]


def get(name: str) -> Preset:
    """Reads a preset.

    Args:
        name: of one of the package, or the path of a YAML file.

    Raises:
        ConfigError: for an unknown name, with the nearest valid one, or a file that
            is none.
    """
    if name.endswith((".yaml", ".yml")):
        return _read(pathlib.Path(name).stem, configs.read_yaml(name), name)
    if name not in names():
        raise ConfigError(discovery.unknown("reproduce preset", name, names()))
    path = _FOLDER / f"{name}.yaml"
    return _read(name, configs.read_yaml(path), path.name)


_KEYS = {
    *("title", "repeats", "source", "hardware", "picture", "versus", "target"),
    *("heads", "paper", "unverified", "settings", "images", "seconds", "scales"),
}
_SCALE_KEYS = {
    *("differs", "options", "settings", "cells", "time", "seconds"),
    *("expected", "target"),
}
_CELL_KEYS = {"settings", "algorithms", "seeds", "grid"}


def _read(name: str, found: Mapping[str, Any], source: str) -> Preset:
    """Reads the content of a file; `source` is how messages call it."""
    _require(found, _KEYS, {"title", "repeats", "settings", "scales"}, source)
    picture = found.get("picture", "table")
    if picture not in PICTURES:
        valid = ", ".join(PICTURES)
        raise ConfigError(f"{source}: picture must be one of {valid}; got {picture!r}.")
    _mapping(found["settings"], f"{source}: settings")
    return Preset(
        name=name,
        title=str(found["title"]),
        repeats=str(found["repeats"]),
        source=str(found.get("source", "")),
        hardware=str(found.get("hardware", "")),
        picture=picture,
        versus=str(found.get("versus", "standalone")),
        heads=found.get("heads", "first") == "all",
        paper=_published(found, source),
        scales={
            scale: _scale(scale, given, found, f"{source}: scales.{scale}")
            for scale, given in _mapping(found["scales"], f"{source}: scales").items()
        },
    )


def _scale(
    name: str, given: Mapping[str, Any], whole: Mapping[str, Any], source: str
) -> Scale:
    _require(given, _SCALE_KEYS, {"cells"}, source)
    common = _mapping(given.get("options", {}), f"{source}.options")
    own = _mapping(given.get("settings", {}), f"{source}.settings")
    settings = {
        setting: _options(setting, whole["settings"][setting], common, own)
        for setting in whole["settings"]
    }
    unknown = [setting for setting in own if setting not in settings]
    if unknown:
        raise ConfigError(
            f"{source}: {discovery.unknown('setting', unknown[0], settings)}"
        )
    return Scale(
        name=name,
        differs=str(given.get("differs", "")),
        settings=settings,
        cells=tuple(
            _cells(each, settings, f"{source}.cells") for each in given["cells"]
        ),
        time=str(given.get("time", "")),
        seconds={**whole.get("seconds", {}), **given.get("seconds", {})},
        images=int(whole.get("images", 40000)),
        expected={
            setting: {
                method: Measured(*_three(value, f"{source}.expected"))
                for method, value in values.items()
            }
            for setting, values in given.get("expected", {}).items()
        },
        target=_mapping(given.get("target", whole.get("target", {})), source),
    )


def _options(
    setting: str, given: Any, common: Mapping[str, Any], own: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Options of a setting: those of its preset, its own, those of the scale."""
    options = dict(_mapping(given or {}, f"settings.{setting}"))
    preset = options.pop("preset", None)
    base = {} if preset is None else configs.read_preset(preset)
    more = _mapping(own.get(setting) or {}, f"settings.{setting}")
    return {**base, **options, **common, **more}


def _cells(given: Any, settings: Mapping[str, Any], source: str) -> Cells:
    _require(given, _CELL_KEYS, {"algorithms"}, source)
    named = tuple(given.get("settings", settings))
    for setting in named:
        if setting not in settings:
            raise ConfigError(
                f"{source}: {discovery.unknown('setting', setting, settings)}"
            )
    return Cells(
        named,
        tuple(given["algorithms"]),
        tuple(given.get("seeds", (0,))),
        _mapping(given.get("grid", {}), f"{source}: grid"),
    )


def _published(
    found: Mapping[str, Any], source: str
) -> dict[str, dict[str, Published]]:
    """The paper's figures, those that were read and those from memory."""
    paper: dict[str, dict[str, Published]] = {}
    for key, verified in (("paper", True), ("unverified", False)):
        for setting, values in _mapping(found.get(key, {}), f"{source}: {key}").items():
            for method, value in _mapping(values, f"{source}: {key}").items():
                held = Published(float(value), verified)
                paper.setdefault(setting, {})[method] = held
    return paper


def _three(value: Any, source: str) -> tuple[float, float | None, int]:
    if not isinstance(value, Sequence) or len(value) != 3:
        raise ConfigError(
            f"{source} takes [mean, sd or null, repeats] for each method; got "
            f"{value!r}."
        )
    mean, sd, repeats = value
    return float(mean), None if sd is None else float(sd), int(repeats)


def _mapping(value: Any, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{source} must hold `key: value` pairs; got {value!r}.")
    return value


def _require(
    found: Any, known: Collection[str], needed: Collection[str], source: str
) -> None:
    """Refuses keys that there are not, and a mapping that lacks one that it needs."""
    for key in _mapping(found, source):
        if key not in known:
            raise ConfigError(f"{source}: {discovery.unknown('key', str(key), known)}")
    for key in sorted(needed):
        if not found.get(key):
            raise ConfigError(f"{source} needs {key}.")
