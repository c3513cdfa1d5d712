"""Server steps that several methods share."""

from typing import Literal

import jax
import jax.numpy as jnp

from fedjax_mrl import tree
from fedjax_mrl.protocol import Cohort, Release, Server, Tree

Aggregation = Literal["mean", "uniform", "last_client"]

# Of servers that average what is like their broadcast: how clients changed it.
MEAN_OF_CHANGES = Release(
    part=lambda upload, broadcast, mechanism: jax.tree.map(
        jnp.subtract, upload, broadcast
    ),
    upload=lambda sums, broadcast, mechanism: jax.tree.map(
        lambda start, change: start + change / mechanism.participants, broadcast, sums
    ),
)
# Of servers that average uploads which are changes already.
MEAN_OF_UPLOADS = Release(
    part=lambda upload, broadcast, mechanism: upload,
    upload=lambda sums, broadcast, mechanism: jax.tree.map(
        lambda change: change / mechanism.participants, sums
    ),
)
NOTHING = Release(
    part=lambda upload, broadcast, mechanism: (),
    upload=lambda sums, broadcast, mechanism: (),
)


def averaging(init: Tree, aggregation: str = "mean") -> Server:
    """A server whose state is what clients share, replaced by an average.

    A mean can be run with differential privacy, in which all participants weigh the
    same; one client's upload cannot.

    Args:
        init: key -> state.
        aggregation: `mean` weights uploads by training samples, `uniform` equally
            over the participants; `last_client` takes one participant's upload, any
            of them equally likely. That is what the authors' FedMRL code does: its
            uploads are one network, which the last participant of an order drawn at
            random in each round was the last to train.

    Raises:
        ValueError: for another aggregation.
    """
    require_known(aggregation)
    return Server(
        init=init,
        broadcast=lambda state: state,
        update=lambda state, uploads, cohort: aggregate(uploads, cohort, aggregation),
        release=None if aggregation == "last_client" else MEAN_OF_CHANGES,
    )


def require_known(aggregation: str) -> None:
    """Checks the name of an aggregation.

    Raises:
        ValueError: for one that is not `mean`, `uniform` or `last_client`.
    """
    if aggregation not in ("mean", "uniform", "last_client"):
        raise ValueError(
            "aggregation must be one of mean, uniform, last_client; got "
            f"{aggregation!r}."
        )


def aggregate(uploads: Tree, cohort: Cohort, aggregation: str) -> Tree:
    """Aggregates uploads [K, ...] of the participants that count."""
    present = cohort.weights > 0
    if aggregation == "last_client":
        number = jnp.maximum(present.sum(), 1)
        drawn = jax.random.randint(cohort.key, (), 0, number)
        return tree.take(uploads, jnp.argsort(~present, stable=True)[drawn])
    uniform = aggregation == "uniform"
    weights = present.astype(cohort.weights.dtype) if uniform else cohort.weights
    return tree.weighted_mean(uploads, weights)


def constant() -> Server:
    """A server that holds and sends nothing."""
    return Server(
        init=lambda key: (),
        broadcast=lambda state: (),
        update=lambda state, uploads, cohort: (),
        release=NOTHING,
    )
