"""From what a configuration names to models, algorithm, split and settings."""

import itertools
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_mrl import algorithms, datasets, discovery, references
from fedjax_mrl.algorithms import Method
from fedjax_mrl.building import private
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data import drawn_test, images, own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import own as own_models
from fedjax_mrl.models.own import Architecture, Sample
from fedjax_mrl.protocol import Algorithm, Setup
from fedjax_mrl.simulation import population
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.strategies import Strategy


def algorithm_options(config: RunConfig, method: Method) -> dict[str, Any]:
    """Returns the algorithm's hyper-parameters, of the types that it declares."""
    try:
        known = typing.get_type_hints(method)
    except Exception:  # annotations of the user's own, which need not be types
        known = {}
    options = config.algorithm_options()
    for name, value in options.items():
        declared = known.get(name, object)  # an unknown one is refused with its name
        kinds = typing.get_args(declared) or (declared,)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if int in kinds and number and value == int(value):
            options[name] = int(value)
        elif float in kinds and number:
            options[name] = float(value)
        elif not isinstance(value, tuple(k for k in kinds if k in (bool, str, object))):
            words = {int: "a whole number", float: "a number", bool: "true or false"}
            raise ConfigError(
                f"--set algorithm.{name} must be {words.get(kinds[0], 'text')}; got "
                f"{value!r}."
            )
    return options


def server_options(config: RunConfig) -> dict[str, Any]:
    """What `--set server.NAME=VALUE` asks for."""
    options = config.server_options()
    known = {"reject_nonfinite": bool, "max_upload_norm": float}
    for name, value in options.items():
        if name not in known:
            raise ConfigError(discovery.unknown("server option", name, known))
        flag = known[name] is bool
        number = isinstance(value, (int, float)) and value >= 0
        if flag != isinstance(value, bool) or not number:
            wanted = "true or false" if flag else "a number, at least 0"
            raise ConfigError(f"--set server.{name} must be {wanted}; got {value!r}.")
    if options.get("max_upload_norm") and not options.get("reject_nonfinite"):
        raise ConfigError(
            "--set server.max_upload_norm needs --set server.reject_nonfinite=true."
        )
    return options


def sample(data: Dataset) -> Sample:
    """Returns the shape of one prepared input, and how many classes there are."""
    kind = np.int32 if data.kind == "tokens" else np.float32
    return Sample(data.x_train.shape[1:], np.dtype(kind), data.num_classes)


def architectures(config: RunConfig, values: Values) -> dict[str, Architecture]:
    """Finds what the entries of `models` and `shared_model` stand for, by entry.

    Raises:
        ValueError: for a name that there is not, or a value that makes no model.
    """
    found: dict[str, Architecture] = {}
    for name in dict.fromkeys((*config.models, config.shared_model)):
        architecture = own_models.architecture(values.models.get(name, name))
        label = architecture.name if references.is_reference(name) else name
        taken = {other.name for other in found.values()}
        found[name] = architecture._replace(name=discovery.unused(label, taken))
    return found


def feature_dim(
    config: RunConfig, known: Mapping[str, Architecture], of: Sample
) -> int:
    """Returns D of `protocol.Setup`: the configuration's, unless no model has it.

    Where all private models have a width of their own, it is that of the first.
    """
    first, *others = (known[name] for name in config.models)
    if not all(architecture.own_width for architecture in (first, *others)):
        return config.feature_dim
    return first.build(of, None, "native").feature_dim


def groups(
    config: RunConfig,
    known: Mapping[str, Architecture],
    of: Sample,
    chosen: Mapping[str, Strategy],
    tasks: Mapping[str, Sequence[int]] | None,
) -> list[Group]:
    """Returns the clients by architecture, and by task if there are several.

    Client k has entry k mod length of `models`, and of `tasks`.

    Raises:
        ValueError: for a task that does not label all classes, or a model that cannot
            be made for these data.
    """
    labels = _labels(tasks, of.num_classes)
    models, names = [], list(labels)
    for place in range(math.lcm(len(config.models), len(labels))):
        architecture = known[config.models[place % len(config.models)]]
        task = names[place % len(names)]
        given = labels[task]
        own = of if given is None else of._replace(num_classes=int(given.max()) + 1)
        width = None if architecture.own_width else config.feature_dim
        model = architecture.build(own, width, chosen[architecture.name].lowering)
        models.append(model._replace(name=_group_name(architecture.name, task)))
    assigned = population.assign(config.num_clients, models)
    by_name = {
        model.name: labels[names[place % len(names)]]
        for place, model in enumerate(models)
    }
    return [group._replace(labels=by_name[group.name]) for group in assigned]


def by_group(
    chosen: Mapping[str, Strategy], tasks: Iterable[str] | None
) -> dict[str, Strategy]:
    """Returns how each group is computed, from how each architecture is."""
    pairs = itertools.product(
        chosen.items(), [""] if tasks is None else map(str, tasks)
    )
    return {_group_name(name, task): strategy for (name, strategy), task in pairs}


def _group_name(architecture: str, task: str) -> str:
    """The name of a group; "" is the task of clients that have none of their own."""
    return f"{architecture}@{task}" if task else architecture


def _labels(
    tasks: Mapping[str, Sequence[int]] | None, num_classes: int
) -> dict[str, np.ndarray | None]:
    """The labels of each task [L]; one without a name where there are no tasks."""
    if tasks is None:
        return {"": None}
    found: dict[str, np.ndarray | None] = {}
    if not isinstance(tasks, Mapping):
        raise ConfigError(
            "tasks must be a dictionary from a name to the labels of that task; got "
            f"{tasks!r}."
        )
    for name, given in tasks.items():
        if not re.fullmatch(r"[\w .-]+", str(name)):
            raise ConfigError(
                "The name of a task must be of letters, digits, spaces and . - _; got "
                f"{name!r}."
            )
        labels = np.asarray(given)
        whole = labels.dtype.kind in "iu" and labels.shape == (num_classes,)
        if not whole or labels.min() < 0 or np.unique(labels).size < 2:
            raise ValueError(
                f"tasks[{name!r}] must give each of the {num_classes} classes a class "
                f"of the task, at least two different ones from 0; got {given!r}."
            )
        found[str(name)] = labels.astype(np.int32)
    if not found:
        raise ValueError("tasks must hold at least one; leave it out for one task.")
    return found


def algorithm(
    method: Method,
    options: Mapping[str, Any],
    make: Callable[[str], Setup],
    chosen: Mapping[str, Strategy],
) -> Algorithm:
    """Builds the algorithm, whose shared model is computed as each client's own one.

    Args:
        method: its constructor.
        options: its hyper-parameters.
        make: lowering of convolutions -> what it is built from.
        chosen: how each group is computed.
    """
    lowerings = dict.fromkeys(strategy.lowering for strategy in chosen.values())
    of = {
        lowering: algorithms.build(method, make(lowering), **options)
        for lowering in lowerings
    }
    client = lambda model: of[chosen[model.name].lowering].client(model)
    return next(iter(of.values()))._replace(client=client)


def data(config: RunConfig, given: Dataset | None = None) -> Dataset:
    """The data set, checked for what the configuration does with it.

    Args:
        config: names it, and says how a test part is drawn if it has none.
        given: the data, if they are there already.

    Raises:
        DatasetError: if its arrays cannot be read or used.
        ConfigError: for an unknown augmentation, or a fraction for testing that the
            data have no use for.
    """
    read_here = given is None
    if given is None:
        given = datasets.load(config.dataset, config.data_dir, config.image_size)
    elif config.image_size not in (None, *given.x_train.shape[1:2]):
        raise ConfigError(
            f"--image-size {config.image_size} is for a folder of images; the data "
            "are given as arrays. Leave it out."
        )
    chosen = augmentation(config, given)
    if chosen not in images.AUGMENTATIONS:
        raise ConfigError(
            discovery.unknown("augmentation", chosen, images.AUGMENTATIONS)
        )
    checked = own.check(given, chosen)
    if not len(checked.y_test):
        fraction, seed = config.test_fraction, config.data_seed
        return drawn_test.draw(checked, fraction, seed, in_place=read_here)
    if config.test_fraction is not None and not checked.test_drawn:
        raise ConfigError(
            f"--test-fraction is for data without a test part, but {checked.name} has "
            f"one of {len(checked.y_test)} examples; leave it out."
        )
    return checked


def augmentation(config: RunConfig, data: Dataset) -> str:
    """Says what training does with examples before a network gets them."""
    if config.augmentation == "auto":
        return data.augmentation
    return own.augmentation_of(data.kind, config.augmentation)


def setup(
    config: RunConfig,
    data: Dataset,
    shared: Architecture,
    width: int,
    lowering: str,
) -> Setup:
    """Returns what every algorithm is given.

    Args:
        config: optimizer and schedules.
        data: what is trained on.
        shared: the architecture that all share.
        width: D, of the private models' representations.
        lowering: how its convolutions are computed.
    """
    of = sample(data)
    build = lambda width: shared.build(of, width, lowering)._replace(name=shared.name)
    return Setup(
        shared=build,
        feature_dim=width,
        num_classes=data.num_classes,
        optimizer=optimizers.sgd(
            config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        ),
        prepare=images.prepare(
            data.mean,
            data.std,
            augmentation(config, data),
            shape=data.x_train.shape[1:],
        ),
        num_rounds=config.schedule_rounds or config.rounds,
    )


def round_config(
    config: RunConfig,
    server: Mapping[str, Any],
    chosen: Mapping[str, Strategy],
    fallback: Strategy,
) -> RoundConfig:
    """Returns how rounds are played.

    Args:
        config: of the run.
        server: as of `server_options`.
        chosen: how each group is computed, by its name.
        fallback: how others would be.
    """
    return RoundConfig(
        seed=config.seed,
        init_seed=config.init_seed,
        cohort_size=config.cohort_size,
        epochs=config.epochs,
        batch_size=config.batch_size,
        chunk=fallback.chunk,
        chunks={name: strategy.chunk for name, strategy in chosen.items()},
        same_start=config.same_start,
        client_store=config.client_store,
        dropout=config.dropout,
        straggler=config.straggler,
        inclusion=config.participation if config.sampling == "poisson" else None,
        mechanism=private.mechanism(config),
        **server,
    )
