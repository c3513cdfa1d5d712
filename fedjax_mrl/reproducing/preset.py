"""The preset of a published table or figure, read from a YAML file.

A file of `presets/` is found by being there. docs/reproduce.md says what its keys mean.
"""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import config as configs
from fedjax_mrl import discovery, references
from fedjax_mrl.config import ConfigError, values
from fedjax_mrl.reproducing import figures
from fedjax_mrl.reproducing.figures import Measured, Names, Published, mapping
from fedjax_mrl.runs import comparison

_FOLDER = pathlib.Path(__file__).parent / "presets"
PICTURES = ("table", "curves", "clients", "sweep")


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
        name: of its file, without the ending.
        file: how messages call the file.
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
    file: str
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
        name: of one of the package, or the path of a YAML file, which ends in .yaml or
            .yml.

    Raises:
        ConfigError: for an unknown name, with the nearest valid one, or a file that
            is none.
    """
    if name.endswith((".yaml", ".yml")):
        return _read(pathlib.Path(name).stem, configs.read_yaml(name), name)
    if name not in names():
        raise ConfigError(_no_preset(name))
    path = _FOLDER / f"{name}.yaml"
    return _read(name, configs.read_yaml(path), path.name)


def _no_preset(name: str) -> str:
    """Why a text is neither a preset's name nor the path of one, and what to do."""
    for ending in (".yaml", ".yml"):
        if pathlib.Path(name + ending).is_file():
            return (
                f"There is no reproduce preset {name!r}, but a file {name}{ending}. A "
                f"file is named with its ending: give {name}{ending}."
            )
    path = pathlib.Path(name)
    if len(path.parts) > 1 or path.suffix or path.exists():
        return (
            "The path of a preset's file must end in .yaml or .yml (given: "
            f"{name!r}). Rename it, or give a preset's name: {', '.join(names())}."
        )
    return discovery.unknown("reproduce preset", name, names())


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
    for key, valid in (("picture", PICTURES), ("heads", ("first", "all"))):
        given = found.get(key, valid[0])
        if given not in valid:
            raise ConfigError(
                f"{source}: {key} must be one of {', '.join(valid)}; got {given!r}."
            )
    scales = figures.folder_names(found["scales"], f"{source}: scales")
    for scale, given in scales.items():
        _require(given, _SCALE_KEYS, {"cells"}, f"{source}: scales.{scale}")
    settings = figures.folder_names(found["settings"], f"{source}: settings")
    names = Names(settings, _methods(scales, source))
    versus = str(found.get("versus", "standalone"))
    if "versus" in found:
        figures.known("algorithm", versus, names.methods, f"{source}: versus")
        versus = names.methods[versus]
    return Preset(
        name=name,
        file=source,
        title=str(found["title"]),
        repeats=str(found["repeats"]),
        source=str(found.get("source", "")),
        hardware=str(found.get("hardware", "")),
        picture=found.get("picture", PICTURES[0]),
        versus=versus,
        heads=found.get("heads", "first") == "all",
        paper=figures.published(found, names, source),
        scales={scale: _scale(scale, found, names, source) for scale in scales},
    )


def _methods(scales: Mapping[str, Any], source: str) -> dict[str, str]:
    """The names of all methods of which some scale has cells, see `Names`.

    Raises:
        ConfigError: for a method that there is not.
    """
    found: dict[str, str] = {}
    for scale, given in scales.items():
        where = f"{source}: scales.{scale}.cells"
        for each in _list(given["cells"], where):
            _require(each, _CELL_KEYS, {"algorithms"}, where)
            for method in map(str, _list(each["algorithms"], f"{where}: algorithms")):
                try:
                    comparison.hyperparameters([method])
                except ValueError as error:
                    raise ConfigError(f"{where}: algorithms: {error}") from error
                short = references.short(method)
                found |= {method: short, short: short}
    return found


def _list(value: Any, source: str) -> Sequence[Any]:
    if not value or not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{source} must be a list, as [a, b]; got {value!r}.")
    return value


def _scale(name: str, whole: Mapping[str, Any], names: Names, source: str) -> Scale:
    """One of the scales of a file; `names` are what its figures may be of."""
    given, where = whole["scales"][name], f"{source}: scales.{name}"
    common = _options(given.get("options", {}), f"{where}.options")
    own = mapping(given.get("settings", {}), f"{where}.settings")
    for setting in own:
        figures.known("setting", setting, names.settings, f"{where}.settings")
    settings = {
        setting: {
            **_setting(options or {}, f"{source}: settings.{setting}"),
            **common,
            **_options(own.get(setting) or {}, f"{where}.settings.{setting}"),
        }
        for setting, options in whole["settings"].items()
    }
    seconds: dict[str, float] = {}
    targets: dict[str, float] = {}
    for level, key in ((whole, source + ":"), (given, f"{where}:")):
        paced, aimed = level.get("seconds", {}), level.get("target")
        seconds |= figures.numbers(paced, None, f"{key} seconds")
        if aimed is not None:  # a scale's own takes the place of the whole
            targets = figures.numbers(aimed, settings, f"{key} target", 1)
    return Scale(
        name=name,
        differs=str(given.get("differs", "")),
        settings=settings,
        cells=tuple(
            _cells(each, settings, f"{where}.cells") for each in given["cells"]
        ),
        time=str(given.get("time", "")),
        seconds=seconds,
        images=figures.whole(whole.get("images", 40000), f"{source}: images", 1),
        expected=figures.measured(
            given.get("expected", {}), names, f"{where}.expected"
        ),
        target=targets,
    )


def _setting(given: Any, source: str) -> dict[str, Any]:
    """The options of a setting, after those of the configuration it begins with."""
    options = dict(mapping(given, source))
    preset = options.pop("preset", None)
    try:
        base = {} if preset is None else configs.read_preset(preset)
    except ConfigError as error:
        raise ConfigError(f"{source}.preset: {error}") from None
    return {**base, **_options(options, source)}


def _options(given: Any, source: str) -> dict[str, Any]:
    """Options that a file gives in one place.

    Raises:
        ConfigError: for an option that there is not, or a value that it does not take.
    """
    fields = configs.fields()
    found = {}
    for key, value in mapping(given, source).items():
        name = str(key).replace("-", "_")
        figures.known("option", name, fields, source)
        if name == "set":
            mapping(value, f"{source}.set")
        try:
            values.check(fields[name], value)
        except ConfigError as error:
            raise ConfigError(f"{source}.{name}: {error}") from None
        found[name] = value
    return found


def _cells(given: Any, settings: Mapping[str, Any], source: str) -> Cells:
    named = tuple(_list(given.get("settings", list(settings)), f"{source}: settings"))
    for setting in named:
        figures.known("setting", setting, settings, source)
    seeds = _list(given.get("seeds", (0,)), f"{source}: seeds")
    return Cells(
        named,
        tuple(map(str, given["algorithms"])),
        tuple(figures.whole(seed, f"{source}: seeds") for seed in seeds),
        mapping(given.get("grid", {}), f"{source}: grid"),
    )


def _require(
    found: Any, known: Collection[str], needed: Collection[str], source: str
) -> None:
    """Refuses keys that there are not, and a mapping that lacks one that it needs."""
    for key in mapping(found, source):
        if key not in known:
            raise ConfigError(f"{source}: {discovery.unknown('key', str(key), known)}")
    for key in sorted(needed):
        if not found.get(key):
            raise ConfigError(f"{source} needs {key}.")
