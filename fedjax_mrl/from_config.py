"""From what a configuration names to models, algorithm, split and settings."""

import itertools
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import algorithms, discovery, partitions, references, rng
from fedjax_mrl.algorithms import Method
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data import images, own
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import own as own_models
from fedjax_mrl.models.own import Architecture, Sample
from fedjax_mrl.partitions import Partition
from fedjax_mrl.protocol import Algorithm, Batches, Examples, Setup, Visit
from fedjax_mrl.simulation import flops as counting
from fedjax_mrl.simulation import population, shapes
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.strategies import Strategy
from fedjax_mrl.values import Values


def hold_out(
    train: tuple[np.ndarray, ...], fraction: float, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Splits every client's training part in what it trains on and what it keeps out.

    Args:
        train: positions by client.
        fraction: of each part to keep out; 0 keeps out nothing, else at least one
            example of a client that has two.
        seed: the data seed.
    """
    kept: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for client, part in enumerate(train):
        draw = rng.host(seed, rng.Purpose.SPLIT, 0, client)
        wanted = round(part.size * fraction)
        count = max(1, wanted) if fraction and part.size > 1 else 0
        chosen = np.sort(draw.permutation(part.size)[:count])
        kept.append(part[chosen])
        rest.append(np.delete(part, chosen))
    return rest, kept


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
        unused, number = label, 2
        while unused in taken:
            unused, number = f"{label}-{number}", number + 1
        found[name] = architecture._replace(name=unused)
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
        name = architecture.name if given is None else f"{architecture.name}-{task}"
        models.append(model._replace(name=name))
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
    if tasks is None:
        return dict(chosen)
    pairs = itertools.product(chosen.items(), tasks)
    return {f"{name}-{task}": strategy for (name, strategy), task in pairs}


def _labels(
    tasks: Mapping[str, Sequence[int]] | None, num_classes: int
) -> dict[str, np.ndarray | None]:
    """The labels of each task [L]; one without a name where there are no tasks."""
    if tasks is None:
        return {"": None}
    found: dict[str, np.ndarray | None] = {}
    for name, given in dict(tasks).items():
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
    config: RunConfig,
    method: Method,
    make: Callable[[str], Setup],
    chosen: Mapping[str, Strategy],
) -> Algorithm:
    """Builds the algorithm, whose shared model is computed as each client's own one.

    Args:
        config: of which the hyper-parameters are taken.
        method: its constructor.
        make: lowering of convolutions -> what it is built from.
        chosen: how each group is computed.
    """
    options = algorithm_options(config, method)
    lowerings = dict.fromkeys(strategy.lowering for strategy in chosen.values())
    of = {
        lowering: algorithms.build(method, make(lowering), **options)
        for lowering in lowerings
    }
    client = lambda model: of[chosen[model.name].lowering].client(model)
    return next(iter(of.values()))._replace(client=client)


def data(config: RunConfig, given: Dataset) -> Dataset:
    """The data set, checked for what the configuration does with it.

    Raises:
        DatasetError: if its arrays cannot be used.
        ConfigError: for an unknown augmentation.
    """
    chosen = augmentation(config, given)
    if chosen not in images.AUGMENTATIONS:
        raise ConfigError(
            discovery.unknown("augmentation", chosen, images.AUGMENTATIONS)
        )
    return own.check(given, chosen)


def split(config: RunConfig, data: Dataset, given: Any = None) -> Partition:
    """The images of every client: those given, or what the configuration says.

    Positions are in the data set as it was loaded, also where the configuration limits
    how many images are used.

    Raises:
        PartitionError: if there is no such split of these images.
        ConfigError: for a limit where the split is given.
    """
    seed, number = config.data_seed, config.num_clients
    train = partitions.subset("train", data.y_train, config.limit_train, seed)
    test = partitions.subset("test", data.y_test, config.limit_test, seed)
    labels = data.y_train, data.y_test
    if given is not None:
        made = partitions.given("the given split", given, number, *map(len, labels))
    elif config.partition.startswith("file:"):
        made = partitions.make(config.partition, *labels, number, seed)
    else:
        labels = data.y_train[train], data.y_test[test]
        made = partitions.make(config.partition, *labels, number, seed)
        return Partition(
            tuple(train[part] for part in made.train),
            tuple(test[part] for part in made.test),
        )
    _require_within("train", made.train, train, len(data.y_train))
    _require_within("test", made.test, test, len(data.y_test))
    return made


def _require_within(
    name: str, parts: Sequence[np.ndarray], kept: np.ndarray, number: int
) -> None:
    """Refuses limits beside a given split, unless it is that of a run with them."""
    inside = np.zeros(number, bool)
    inside[kept] = True
    if not all(inside[part].all() for part in parts):
        raise ConfigError(
            f"A given split says which {name} images are used; got --limit-{name} "
            f"{kept.size} as well. Leave that out."
        )


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
        prepare=images.prepare(data.mean, data.std, augmentation(config, data)),
        num_rounds=config.schedule_rounds or config.rounds,
    )


def round_config(
    config: RunConfig, chosen: Mapping[str, Strategy], fallback: Strategy
) -> RoundConfig:
    """Returns how rounds are played.

    Args:
        config: of the run.
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
        **server_options(config),
    )


def visit_flops(
    data: Dataset,
    built: Algorithm,
    groups: Sequence[Group],
    train: Sequence[np.ndarray],
    settings: RoundConfig,
) -> np.ndarray:
    """FLOPs of every client's visit [N]: local epochs and sweeps, no evaluation.

    Counted on the mathematics (`flops`); an example costs the same in a full and in a
    partial batch.

    Args:
        data: what is trained on.
        built: the algorithm, and
        groups: the clients, both with convolutions lowered to `im2col`.
        train: positions by client.
        settings: epochs and batches.
    """
    sizes = np.array([part.size for part in train])
    batch, sweep = settings.batch_size, settings.sweep_batch_size
    visit = _one_step_visit(data, batch, sweep)
    result = np.zeros(len(train))
    for group in groups:
        client = built.client(group.model)
        of = shapes.of(built, group.model)
        given = of.broadcast, of.private, visit, of.key

        def cost(client=client, given=given, **repeat):
            return counting.count(client.update, *given, repeat=repeat)

        once = cost(train_step=0, sweep_step=0)  # whatever the data, as an SVD
        trained = cost(sweep_step=0) - once
        swept = cost(train_step=0) - once
        result[group.clients] = once + sizes[group.clients] * (
            trained / batch * settings.epochs + swept / sweep
        )
    return result


def _one_step_visit(data: Dataset, batch: int, sweep: int) -> Visit:
    shape: Any = jax.ShapeDtypeStruct  # shapes suffice where arrays stand
    examples = Examples(
        shape(data.x_train.shape, data.x_train.dtype),
        shape(data.y_train.shape, jnp.int32),
    )
    number = shape((), jnp.int32)
    table = lambda size: Batches(shape((1, size), jnp.int32), number)
    return Visit(examples, table(batch), table(sweep), table(sweep), number)
