"""What a configuration names: models, the algorithm, its options and arithmetic."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import algorithms, discovery, models, partitions, rng
from fedjax_mrl.config import ConfigError, RunConfig
from fedjax_mrl.data import images, own
from fedjax_mrl.data.dataset import Dataset, DatasetError
from fedjax_mrl.learning import optimizers
from fedjax_mrl.partitions import Partition
from fedjax_mrl.protocol import Algorithm, Batches, Examples, Model, Setup, Visit
from fedjax_mrl.simulation import flops as counting
from fedjax_mrl.simulation import shapes
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.strategies import Strategy


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


def algorithm_options(config: RunConfig) -> dict[str, Any]:
    """The algorithm's hyper-parameters, of the types that it declares."""
    known = typing.get_type_hints(algorithms.get(config.algorithm))
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
        if (known[name] is bool) != isinstance(value, bool) or not value >= 0:
            wanted = "true or false" if known[name] is bool else "a number, at least 0"
            raise ConfigError(f"--set server.{name} must be {wanted}; got {value!r}.")
    if options.get("max_upload_norm") and not options.get("reject_nonfinite"):
        raise ConfigError(
            "--set server.max_upload_norm needs --set server.reject_nonfinite=true."
        )
    return options


def model(config: RunConfig, data: Dataset, name: str, width: int) -> Model:
    """A model for these images, its representation so wide."""
    return models.build(
        name,
        data.x_train.shape[1:],
        data.num_classes,
        feature_dim=width,
        lowering=config.lowering,
    )


def algorithm(
    config: RunConfig,
    data: Dataset,
    chosen: dict[str, Strategy],
    options: dict[str, Any],
) -> Algorithm:
    """The algorithm, whose shared model is computed as each client's own one."""

    def built(lowering):
        own = dataclasses.replace(config, lowering=lowering)
        return algorithms.build(config.algorithm, setup(own, data), **options)

    lowerings = dict.fromkeys(strategy.lowering for strategy in chosen.values())
    of = {lowering: built(lowering) for lowering in lowerings}
    client = lambda model: of[chosen[model.name].lowering].client(model)
    return next(iter(of.values()))._replace(client=client)


def data(config: RunConfig, given: Dataset) -> Dataset:
    """The data set, checked for what the configuration does with it.

    Raises:
        DatasetError: if its arrays cannot be used.
        ConfigError: for an unknown augmentation.
    """
    if not isinstance(given, Dataset):
        raise DatasetError(
            "dataset must be a name or a Dataset, as fm.arrays(x, y, x_test, y_test) "
            f"makes one; got {type(given).__name__}."
        )
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
    """What training does with images before a network gets them."""
    return data.augmentation if config.augmentation == "auto" else config.augmentation


def setup(config: RunConfig, data: Dataset) -> Setup:
    """What every algorithm is given."""
    return Setup(
        shared=lambda width: model(config, data, config.shared_model, width),
        feature_dim=config.feature_dim,
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


def visit_flops(
    config: RunConfig,
    data: Dataset,
    groups: Sequence[Group],
    train: Sequence[np.ndarray],
    round_config: RoundConfig,
) -> np.ndarray:
    """FLOPs of every client's visit [N]: local epochs and sweeps, no evaluation.

    Counted on the mathematics (`flops`), whatever the lowering; an example costs the
    same in a full and in a partial batch.
    """
    config = dataclasses.replace(config, lowering="im2col", strategies=())
    prepared = setup(config, data)
    built = algorithms.build(config.algorithm, prepared, **algorithm_options(config))
    sizes = np.array([part.size for part in train])
    batch = round_config.batch_size
    sweep = round_config.sweep_batch_size
    visit = _one_step_visit(data, batch, sweep)
    result = np.zeros(len(train))
    for group in groups:
        own = model(config, data, group.name, config.feature_dim)
        client = built.client(own)
        of = shapes.of(built, own)
        given = of.broadcast, of.private, visit, of.key

        def cost(client=client, given=given, **repeat):
            return counting.count(client.update, *given, repeat=repeat)

        once = cost(train_step=0, sweep_step=0)  # whatever the data, as an SVD
        trained = cost(sweep_step=0) - once
        swept = cost(train_step=0) - once
        result[group.clients] = once + sizes[group.clients] * (
            trained / batch * config.epochs + swept / sweep
        )
    return result


def _one_step_visit(data: Dataset, batch: int, sweep: int) -> Visit:
    shape = jax.ShapeDtypeStruct
    examples = Examples(
        shape(data.x_train.shape, data.x_train.dtype),
        shape(data.y_train.shape, jnp.int32),
    )
    number = shape((), jnp.int32)
    table = lambda size: Batches(shape((1, size), jnp.int32), number)
    return Visit(examples, table(batch), table(sweep), table(sweep), number)
