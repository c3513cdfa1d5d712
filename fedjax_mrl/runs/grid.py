"""The grid of a sweep: options, the values that each has, and the cells they make.

An option is called as in a configuration (`momentum`), a hyper-parameter as in `set`
(`algorithm.alpha`, `server.max_upload_norm`, `fml.alpha` for one of the algorithms).
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

from fedjax_mrl import config as configs
from fedjax_mrl import discovery, references
from fedjax_mrl.config import ConfigError, values

# Options to values, in the order in which they were given.
Grid = Mapping[str, Sequence[object]]
_NO_RESULT = "it changes no result; give it once, as an option of its own"
_ROUNDS = (
    "a run of more rounds holds those of fewer: compare with the largest number and "
    "read metrics.csv"
)
_REFUSED = {
    "algorithm": "the list of algorithms says which are compared",
    "dataset": "a comparison is of one data set; make one for each",
    "data_dir": "a comparison is of one data set; make one for each",
    "image_size": "a comparison is of one data set; make one for each",
    "test_fraction": "runs of a comparison are tested on the same examples",
    "set": "name the hyper-parameter, as in algorithm.alpha",
    "rounds": _ROUNDS,
    "schedule_rounds": "runs of a comparison share their schedules",
    "deterministic": "JAX takes it once for a whole process",
    "eval_every": _NO_RESULT,
    "checkpoint_every": _NO_RESULT,
    "keep_checkpoints": _NO_RESULT,
    "digest_every": _NO_RESULT,
    "devices": _NO_RESULT,
    "client_store": _NO_RESULT,
}
_LISTS = ("models", "strategies")  # whose values hold commas themselves


def parse(words: Iterable[str]) -> dict[str, list[str]]:
    """Reads `NAME=V1,V2`; a semicolon parts values that hold commas.

    Args:
        words: of --grid; one NAME may come several times.

    Raises:
        ConfigError: for a word without a name or a value, or a list of lists whose
            values are parted by commas.

    Example:
        >>> parse(["momentum=0.5,0.9", "models=mlp;cnn1,cnn2"])
        {'momentum': ['0.5', '0.9'], 'models': ['mlp', 'cnn1,cnn2']}
    """
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = _plain(name)
        if name in _LISTS and "," in text and ";" not in text:
            raise ConfigError(
                f"A value of {name} may hold commas, so its values are parted by "
                f"semicolons, as in --grid '{name}=A,B;C'; got {word!r}. (One value "
                "alone ends with a semicolon.)"
            )
        listed = [part.strip() for part in text.split(";" if ";" in text else ",")]
        listed = [part for part in listed if part]
        if not (equals and name and listed):
            raise ConfigError(
                "--grid takes NAME=VALUE,VALUE,..., as in --grid momentum=0.5,0.9; got "
                f"{word!r}."
            )
        found.setdefault(name, []).extend(listed)
    return found


def check(given: Grid, hyper: Mapping[str, Collection[str]]) -> dict[str, tuple]:
    """Reads the values of a grid, each by the type of its option.

    Args:
        given: options and their values, which may be texts.
        hyper: the algorithms that are compared -> their hyper-parameters.

    Raises:
        ConfigError: for an option that there is not, with the nearest that there is;
            for one that a comparison cannot sweep, with the reason; for a value that
            the option does not take, or none.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(
            "grid must be a dictionary from options to values, as in "
            f'{{"momentum": (0.5, 0.9)}}; got {given!r}.'
        )
    found: dict[str, tuple] = {}
    for name, listed in given.items():
        key = _plain(str(name))
        _require_known(key, hyper)
        if isinstance(listed, str) or not isinstance(listed, Sequence) or not listed:
            raise ConfigError(
                f"grid: {key} needs a list of at least one value; got {listed!r}."
            )
        if key in configs.fields():
            field = configs.fields()[key]
            read = [values.check(field, value) for value in listed]
        else:
            read = [_setting(key, value) for value in listed]
        if key == "shared_dim" and "algorithm.shared_dim" in map(_plain, given):
            raise ConfigError(
                "grid: shared_dim and algorithm.shared_dim are one option."
            )
        found[key] = tuple(dict.fromkeys(read))
    return found


def require_one_test_part(grid: Grid, *, drawn: bool) -> None:
    """Refuses data seeds that would draw test parts of their own.

    Args:
        grid: of a comparison.
        drawn: whether the test part is drawn from the training examples.

    Raises:
        ConfigError: if they would.
    """
    if drawn and "data_seed" in grid:
        raise ConfigError(
            "A comparison cannot sweep data_seed where it also draws the test part, "
            "since runs are tested on the same examples; give data with x_test and "
            "y_test."
        )


def cells(grid: Grid) -> list[dict[str, object]]:
    """Every combination of the values; without options one that says nothing.

    Example:
        >>> cells({"momentum": (0.5, 0.9)})
        [{'momentum': 0.5}, {'momentum': 0.9}]
    """
    product = itertools.product(*grid.values())
    return [dict(zip(grid, values, strict=True)) for values in product]


def _plain(name: str) -> str:
    return name.strip().replace("-", "_")


def _require_known(key: str, hyper: Mapping[str, Collection[str]]) -> None:
    """Refuses what is no option, and what a comparison cannot sweep."""
    if key in _REFUSED:
        raise ConfigError(f"A comparison cannot sweep {key}: {_REFUSED[key]}.")
    if key in configs.fields():
        return
    own = {references.short(name): known for name, known in hyper.items()}
    settings = {f"algorithm.{o}" for known in hyper.values() for o in known}
    settings |= {f"{name}.{o}" for name, known in own.items() for o in known}
    if key in settings or key.startswith("server."):
        return
    if f"algorithm.{key}" in settings:
        raise ConfigError(
            f"{key} is a hyper-parameter of an algorithm; its name in a grid is "
            f"algorithm.{key}."
        )
    swept = [name for name in configs.fields() if name not in _REFUSED]
    raise ConfigError(
        discovery.unknown("option to sweep", key, [*swept, *sorted(settings)])
    )


def _setting(key: str, given: object) -> object:
    """A value of a hyper-parameter; a text is read as --set reads it."""
    if isinstance(given, str):
        _, given = configs.parse_setting(f"{key}={given}")
    field = configs.fields()["set"]
    ((_, read),) = values.check(field, {key: given})
    return read
