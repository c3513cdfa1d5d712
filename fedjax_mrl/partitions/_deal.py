"""Functions that the schemes share: whole numbers out of shares, and cutting."""

from collections.abc import Sequence

import numpy as np

from fedjax_mrl.partitions._partition import Partition, PartitionError


def apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """Splits `total` in proportion to `weights` into whole numbers.

    Everyone gets the floor of the exact share, and what is left goes to the largest
    remainders; so a share is less than one off, and a weight of zero gets nothing.
    Integer weights are split without rounding errors.

    Args:
        total: non-negative integer.
        weights: non-negative [N], with a positive sum.

    Returns:
        int64 [N] that sums to `total`.
    """
    if np.issubdtype(weights.dtype, np.integer):
        weights = weights.astype(np.int64)
        counts, remainders = np.divmod(total * weights, weights.sum())
    else:
        exact = total * (weights / weights.sum())
        counts = np.floor(exact).astype(np.int64)
        remainders = exact - counts
    # Of equal remainders the first ones win: the result is a function of its input.
    order = np.argsort(-remainders, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def cut(order: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Cuts `order` into consecutive pieces of `counts` [N]; a rest is left over."""
    return np.split(order, np.cumsum(counts))[:-1]


def partition(
    train: Sequence[Sequence[np.ndarray]], test: Sequence[Sequence[np.ndarray]]
) -> Partition:
    """Joins the pieces of every client to sorted int32 positions."""

    def join(pieces):
        return np.sort(np.concatenate(pieces)).astype(np.int32)

    return Partition(tuple(map(join, train)), tuple(map(join, test)))


def minimum(num_train: int, num_clients: int) -> int:
    """Least number of training images a client: 10, or a quarter of the mean."""
    return max(1, min(10, num_train // (4 * num_clients)))


def concentration(name: str, argument: float | None) -> float:
    """Returns the Dirichlet concentration that a scheme was given, if usable."""
    if argument is None or not 1e-3 <= argument <= 1e6:
        raise PartitionError(
            f"The partition {name!r} needs a concentration in [0.001, 1000000], as in "
            f"'{name}:0.5', but it is {argument}."
        )
    return argument
