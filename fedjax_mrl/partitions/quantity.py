"""Quantity skew: clients differ in the number of their images, not in the labels.

Reference:
    Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study",
    ICDE 2022, https://arxiv.org/abs/2102.02079.

Differences:
    Every client first gets a minimum (10 training images and 1 test image), and the
    shares are of the rest; the authors' code draws until nobody is below 10, which
    for many clients and a small concentration does not end.
"""

import numpy as np

from fedjax_mrl.partitions import Partition, _deal

__all__ = ["quantity"]


def quantity(
    y_train: np.ndarray,
    y_test: np.ndarray,
    num_clients: int,
    argument: float | None,
    rng: np.random.Generator,
) -> Partition:
    """Deals out all images at random, in parts of sizes ~ Dir(`argument`).

    Args:
        y_train: labels of the training images [n]; only their number counts.
        y_test: labels of the test images [m]; likewise.
        num_clients: N.
        argument: concentration; small is unequal, and the larger the nearer to "iid".
        rng: the only source of randomness.

    Raises:
        PartitionError: if the argument is not in [0.001, 1000000].
    """
    alpha = _deal.concentration("quantity", argument)
    least = _deal.minimum(y_train.size, num_clients)
    weights = rng.dirichlet(np.full(num_clients, alpha))
    train = least + _deal.apportion(y_train.size - least * num_clients, weights)
    test = 1 + _deal.apportion(y_test.size - num_clients, train)

    def parts(counts):
        order = rng.permutation(counts.sum())
        return [[part] for part in _deal.cut(order, counts)]

    return _deal.partition(parts(train), parts(test))
