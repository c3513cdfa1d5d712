"""How much every client computes in a visit, counted on the mathematics."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.protocol import Algorithm, Batches, Examples, Visit
from fedjax_mrl.simulation import flops as counting
from fedjax_mrl.simulation import shapes
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig


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
    visit = one_step_visit(data, batch, sweep)
    result = np.zeros(len(train))
    for group in groups:
        client = built.client(group.model)
        of = shapes.of(built, group.model)
        cost = counting.counter(client.update, of.broadcast, of.private, visit, of.key)
        once = cost({"train_step": 0, "sweep_step": 0})  # whatever the data, as an SVD
        trained = cost({"sweep_step": 0}) - once
        swept = cost({"train_step": 0}) - once
        result[group.clients] = once + sizes[group.clients] * (
            trained / batch * settings.epochs + swept / sweep
        )
    return result


def one_step_visit(data: Dataset, batch: int, sweep: int) -> Visit:
    """Shapes of a visit with one minibatch of `batch`, and passes of `sweep`."""
    shape: Any = jax.ShapeDtypeStruct  # shapes suffice where arrays stand
    examples = Examples(
        shape(data.x_train.shape, data.x_train.dtype),
        shape(data.y_train.shape, jnp.int32),
    )
    number = shape((), jnp.int32)
    table = lambda size: Batches(shape((1, size), jnp.int32), number)
    return Visit(examples, table(batch), table(sweep), table(sweep), number)
