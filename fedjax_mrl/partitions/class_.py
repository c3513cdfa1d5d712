"""A fixed number of classes a client, as in the FedMRL authors' code.

A random 80% of the training images are used; the rest, which the authors keep for
a validation that they do not do, belongs to nobody. Every class is cut into the
same number of portions of unequal size, and every client takes its classes from
those of which most portions are left. Training and test images are cut alike.

Reference:
    Yi et al., "Federated Model Heterogeneous Matryoshka Representation Learning",
    NeurIPS 2024, https://arxiv.org/abs/2406.00488.

Differences:
    A client never gets two portions of one class. In the authors' code it can where
    the number of classes a client does not divide the number of classes.
"""

import math

import numpy as np

from fedjax_mrl.partitions import Partition, PartitionError, _deal

__all__ = ["class_"]

_USED = (4, 5)  # of the training images; a fraction of integers rounds predictably
_PORTION = (0.4, 0.6)
# The classes and portions of every client: [N] lists of (class, portion).
Dealt = list[list[tuple[int, int]]]


def class_(
    y_train: np.ndarray,
    y_test: np.ndarray,
    num_clients: int,
    argument: float | None,
    rng: np.random.Generator,
) -> Partition:
    """Gives every client portions of `argument` classes.

    Args:
        y_train: labels of the training images [n].
        y_test: labels of the test images [m].
        num_clients: N.
        argument: classes a client, from 1 to L; times N a multiple of L.
        rng: the only source of randomness.

    Raises:
        PartitionError: if the classes cannot be cut and dealt out like this.
    """
    labels = np.unique(y_train)
    num_classes = labels.size
    if argument is None or argument not in range(1, num_classes + 1):
        raise PartitionError(
            "The partition 'class' needs the number of classes a client, a whole "
            f"number from 1 to {num_classes}, as in 'class:2', but it is "
            f"{argument if argument is None else format(argument, 'g')}."
        )
    per_client = int(argument)
    num_portions = _num_portions(num_clients, per_client, num_classes)
    shares = rng.uniform(*_PORTION, (num_classes, num_portions))
    shares /= shares.sum(axis=1, keepdims=True)
    taken = _deal_out(num_clients, per_client, num_classes, num_portions, rng)

    num_used = y_train.size * _USED[0] // _USED[1]
    used = np.sort(rng.permutation(y_train.size)[:num_used])
    train = _pieces(y_train[used], labels, shares, taken, rng)
    test = _pieces(y_test, labels, shares, taken, rng)
    for part, pieces, each in (("training", train, min), ("test", test, sum)):
        if min(each(piece.size for piece in client) for client in pieces) < 1:
            raise PartitionError(
                f"There are too few {part} images for {num_portions} portions of every "
                "class: a client would lack some; use fewer clients or fewer classes "
                "a client."
            )
    return _deal.partition([[used[p] for p in client] for client in train], test)


def _num_portions(num_clients: int, per_client: int, num_classes: int) -> int:
    """The number of portions that every class is cut into."""
    wanted = num_clients * per_client
    if wanted % num_classes:
        raise PartitionError(
            f"The classes must be cut into equally many portions, but {num_clients} "
            f"clients with {per_client} each take {wanted}, no multiple of the "
            f"{num_classes} classes; change num_clients to a multiple of "
            f"{num_classes // math.gcd(num_classes, per_client)}, or the classes a "
            f"client to a multiple of "
            f"{num_classes // math.gcd(num_classes, num_clients)}; or take another "
            "partition, as dirichlet:0.5, which suits any number."
        )
    return wanted // num_classes


def _deal_out(
    num_clients: int,
    per_client: int,
    num_classes: int,
    num_portions: int,
    rng: np.random.Generator,
) -> Dealt:
    """Classes and portions that each client takes: [N] lists of (class, portion).

    Always taking the classes with most portions left, each once, never gets stuck:
    no class is left with more portions than there are clients to come.
    """
    left = np.full(num_classes, num_portions)
    taken = []
    for _ in range(num_clients):
        free = left.copy()
        pairs = []
        for _ in range(per_client):
            most = rng.choice(np.flatnonzero(free == free.max()))
            left[most] -= 1
            free[most] = -1  # not twice
            pairs.append((most, left[most]))
        taken.append(pairs)
    return taken


def _pieces(
    y: np.ndarray,
    labels: np.ndarray,
    shares: np.ndarray,
    taken: Dealt,
    rng: np.random.Generator,
) -> list[list[np.ndarray]]:
    """Positions in `y` of each client's portions: [N] lists of arrays."""
    portions = []
    for label, share in zip(labels, shares, strict=True):
        order = rng.permutation(np.flatnonzero(y == label))
        # Rounded down as in the authors' code, so a few images are left over.
        portions.append(_deal.cut(order, (order.size * share).astype(np.int64)))
    return [[portions[c][portion] for c, portion in pairs] for pairs in taken]
