"""Refuses settings of several runs before the first of them trains."""

from collections.abc import Iterable

from fedjax_mrl import algorithms, discovery, partitions, references
from fedjax_mrl.building import from_config
from fedjax_mrl.building.values import Values
from fedjax_mrl.config import ConfigError, RunConfig


def require_known(configs: Iterable[RunConfig], values: Values | None = None) -> None:
    """Looks whether what configurations name exists and has the right type.

    Whether a run can be built is known only when it is: a run that cannot does not
    stop others.

    Args:
        configs: of the runs.
        values: what was given as a value.

    Raises:
        ValueError: for the first name or value that cannot be used.
    """
    values = Values() if values is None else values
    for config in configs:
        given = values.algorithms.get(config.algorithm, config.algorithm)
        method = algorithms.get(given)
        options = from_config.algorithm_options(config, method)
        known = algorithms.hyperparameters(method)
        for option in options:
            if option not in known:
                kind = f"hyper-parameter of {references.short(config.algorithm)}"
                raise ConfigError(discovery.unknown(kind, option, known))
        from_config.server_options(config)
        from_config.architectures(config, values)
        if values.partition is None and not config.partition.startswith("file:"):
            partitions.get(config.partition.partition(":")[0])
