"""Values that stand where a configuration has names: methods, models, data, a split."""

import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fedjax_mrl import algorithms, config, discovery, models, references
from fedjax_mrl.config import ConfigError
from fedjax_mrl.data.dataset import Dataset, DatasetError
from fedjax_mrl.models import own
from fedjax_mrl.protocol import Algorithm

Tasks = Mapping[str, Sequence[int]]  # name -> labels, see `Federation`


class Values(NamedTuple):
    """A user's values by the names that the configuration has for them.

    Attributes:
        algorithms: functions of `protocol.Setup`.
        models: whatever `models.own.architecture` takes.
        dataset: the data; None to load what is named.
        partition: a split; None to make what is named.
        tasks: name -> labels, see `Federation`.
    """

    algorithms: Mapping[str, Callable[..., Algorithm]] = types.MappingProxyType({})
    models: Mapping[str, Any] = types.MappingProxyType({})
    dataset: Dataset | None = None
    partition: Any = None
    tasks: Tasks | None = None

    def under(self, newer: "Values") -> "Values":
        """These values, save where `newer` has others."""
        return Values(
            {**self.algorithms, **newer.algorithms},
            {**self.models, **newer.models},
            self.dataset if newer.dataset is None else newer.dataset,
            self.partition if newer.partition is None else newer.partition,
            self.tasks if newer.tasks is None else newer.tasks,
        )


def take(options: Mapping[str, Any]) -> tuple[dict[str, Any], Values]:
    """Parts what was given to `Federation` into settings and values.

    Args:
        options: of `RunConfig`, where `algorithm`, `models`, `shared_model`, `dataset`
            and `partition` may be values; and `tasks`.

    Returns:
        The options with names for values, and the values. What can be imported again
        is named by its reference (`references.of`), so that a saved run finds it.

    Raises:
        ValueError: for values of the wrong kind.
    """
    named = dict(options)
    _require_no_hyperparameters(named)
    methods: dict[str, Callable[..., Algorithm]] = {}
    networks: dict[str, Any] = {}
    method = named.get("algorithm")
    if method is not None and not isinstance(method, str):
        named["algorithm"] = name = _method_name(method)
        methods[name] = method
    if named.get("models") is not None and not isinstance(named["models"], str):
        given = named["models"]
        listed = isinstance(given, Sequence) and not hasattr(given, "_fields")
        entries = given if listed else [given]
        named["models"] = tuple(_model_name(entry, networks) for entry in entries)
    if named.get("shared_model") is not None:
        named["shared_model"] = _model_name(named["shared_model"], networks)
    dataset = named.get("dataset")
    if isinstance(dataset, os.PathLike):
        named["dataset"] = dataset = os.path.abspath(os.path.expanduser(dataset))
    if dataset is None or isinstance(dataset, str):
        dataset = None
    elif isinstance(dataset, Dataset):
        named["dataset"] = dataset.name
    else:
        raise DatasetError(
            "dataset must be a path, a name or a Dataset, as fm.arrays(x, y, x_test, "
            f"y_test) makes one; got {type(dataset).__name__}."
        )
    partition = named.get("partition")
    if isinstance(partition, str):
        partition = None
    else:
        named.pop("partition", None)
    tasks = named.pop("tasks", None)
    given = {key: value for key, value in named.items() if value is not None}
    return given, Values(methods, networks, dataset, partition, tasks)


def _require_no_hyperparameters(options: Mapping[str, Any]) -> None:
    """Says how a method's own parameter is given, where it stands as an option."""
    method = options.get("algorithm") or "fedmrl"
    settings = {*config.fields(), "tasks"}
    extra = [name for name in options if name not in settings]
    if extra and (callable(method) or isinstance(method, str)):
        own_ones = algorithms.hyperparameters(method)
        for name in extra:
            if name in own_ones:
                raise ConfigError(
                    f"{name} is a hyper-parameter of the method; give it as "
                    f'set={{"algorithm.{name}": {options[name]!r}}}.'
                )


def _method_name(method: Any) -> str:
    """How the configuration calls a method that is a function."""
    if not callable(method):
        raise ConfigError(
            "algorithm must be a name, FILE.py:NAME, or a function of fm.Setup to an "
            f"fm.Algorithm; got {method!r}."
        )
    reference = references.of(method)
    if reference is not None:
        return reference
    name = _plain(getattr(method, "__name__", type(method).__name__))
    if name in algorithms.names():
        raise ConfigError(
            f"Your algorithm is called {name}, as one of this library; give the "
            "function another name."
        )
    return name


def _model_name(value: Any, known: dict[str, Any]) -> str:
    """How the configuration calls a model; notes it in `known`."""
    if isinstance(value, str):
        return value
    for name, other in known.items():
        if other is value or (type(other) is type(value) and _equal(other, value)):
            return name
    reference = references.of(value)
    label = _plain(own.architecture(value).name)
    name = reference or discovery.unused(label, {*known, *models.names()})
    known[name] = value
    return name


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same network; arrays in them cannot be compared."""
    if isinstance(one, own.Blueprint) and one.source is not None:
        one, other = (one.feature_dim, one.source), (other.feature_dim, other.source)
    try:
        return bool(one == other)
    except Exception:
        return False


def _plain(name: str) -> str:
    """A name that is fit for tables, folders and options."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "own"
