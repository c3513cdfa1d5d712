"""Label skew: every class is spread over the clients by Dirichlet proportions.

Reference:
    Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural
    Networks", ICML 2019, https://arxiv.org/abs/1905.12022; with a minimum size as in
    Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study",
    ICDE 2022, https://arxiv.org/abs/2102.02079.
"""

import numpy as np

from fedjax_mrl.partitions import Partition, PartitionError, _deal

__all__ = ["dirichlet"]

_TRIES = 1000


def dirichlet(
    y_train: np.ndarray,
    y_test: np.ndarray,
    num_clients: int,
    argument: float | None,
    rng: np.random.Generator,
) -> Partition:
    """Spreads every class over the clients in proportions ~ Dir(`argument`).

    All images are used, and a client has test images only of classes that it trains
    on. Drawn anew until every client has at least 10 training images (fewer where
    the mean is below 40) and a test image.

    Args:
        y_train: labels of the training images [n].
        y_test: labels of the test images [m].
        num_clients: N.
        argument: concentration; small leaves a client few classes, large is "iid".
        rng: the only source of randomness.

    Raises:
        PartitionError: if the argument is not in [0.001, 1000000], or if no try
            gives every client enough images.
    """
    alpha = _deal.concentration("dirichlet", argument)
    labels, num_train = np.unique(y_train, return_counts=True)
    num_test = (y_test == labels[:, None]).sum(axis=1)
    least = _deal.minimum(y_train.size, num_clients)
    train, test = _counts(alpha, num_train, num_test, num_clients, least, rng)

    def parts(y, counts):
        pieces = [
            _deal.cut(rng.permutation(np.flatnonzero(y == label)), row)
            for label, row in zip(labels, counts, strict=True)
        ]
        return zip(*pieces, strict=True)  # by client

    return _deal.partition(list(parts(y_train, train)), list(parts(y_test, test)))


def _counts(
    alpha: float,
    num_train: np.ndarray,
    num_test: np.ndarray,
    num_clients: int,
    least: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Images of each class and client, for training and test: two arrays [L, N]."""
    for _ in range(_TRIES):
        weights = rng.dirichlet(np.full(num_clients, alpha), size=num_train.size)
        train = np.stack(list(map(_deal.apportion, num_train, weights)))
        if train.sum(axis=0).min() < least:
            continue
        # By what the clients did get for training, so not even rounding can give a
        # client test images of a class that it has never seen.
        test = np.stack(list(map(_deal.apportion, num_test, train)))
        if test.sum(axis=0).min() >= 1:
            return train, test
    raise PartitionError(
        f"Every client must have at least {least} training images and 1 test image, "
        f"but with the concentration {alpha:g} and {num_clients} clients none of "
        f"{_TRIES} tries got there; use a larger concentration or fewer clients."
    )
