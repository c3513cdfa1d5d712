"""The part of a shared network that travels, and the part that a client keeps.

With tasks of their own (heterogeneous objectives) clients share only the extractor,
and each keeps a header with as many classes as its task has.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from fedjax_mrl import rng
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Key, Model, Network, Params, Setup


class Sharing(NamedTuple):
    """How a network is parted.

    Attributes:
        split: network -> the part that travels, the part that is kept.
        join: both parts -> the network.
        head: shared model -> the function from header and representation to logits.
        init_kept: shared model, classes of the client's task, key -> the kept part.
        own_tasks: whether clients may have different classes.
    """

    split: Callable[[Network], tuple[Network, Params]]
    join: Callable[[Network, Params], Network]
    head: Callable[[Model], Callable[[Params, jax.Array], jax.Array]]
    init_kept: Callable[[Model, int, Key], Params]
    own_tasks: bool


NETWORK = Sharing(
    split=lambda network: (network, ()),
    join=lambda travelling, kept: travelling,
    head=lambda shared: shared.head,
    init_kept=lambda shared, num_classes, key: (),
    own_tasks=False,
)


def _init_header(shared: Model, num_classes: int, key: Key) -> Params:
    return layers.init_linear(
        rng.named(key, "meme header"), shared.feature_dim, num_classes
    )


EXTRACTOR = Sharing(
    split=lambda network: (network._replace(header=()), network.header),
    join=lambda travelling, kept: travelling._replace(header=kept),
    head=lambda shared: layers.linear,
    init_kept=_init_header,
    own_tasks=True,
)


def get(share: str) -> Sharing:
    """Returns how `network` or `extractor` is shared.

    Raises:
        ValueError: for another word.
    """
    if share not in ("network", "extractor"):
        raise ValueError(f"share must be network or extractor; got {share!r}.")
    return NETWORK if share == "network" else EXTRACTOR


def require_task(sharing: Sharing, model: Model, setup: Setup) -> None:
    """Checks that a shared header fits the classes of a client's task.

    Raises:
        ValueError: if it has another number of them.
    """
    if not sharing.own_tasks and model.num_classes != setup.num_classes:
        raise ValueError(
            f"A shared meme has {setup.num_classes} classes, but the task of "
            f"{model.name} has {model.num_classes}; clients with tasks of their "
            "own need share=extractor."
        )
