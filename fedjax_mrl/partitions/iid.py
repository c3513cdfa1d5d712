"""Equal random parts: every client has the same distribution."""

import numpy as np

from fedjax_mrl.partitions import Partition, PartitionError, _deal

__all__ = ["iid"]


def iid(
    y_train: np.ndarray,
    y_test: np.ndarray,
    num_clients: int,
    argument: float | None,
    rng: np.random.Generator,
) -> Partition:
    """Deals out all images at random; parts differ by at most one image.

    Args:
        y_train: labels of the training images [n]; only their number counts.
        y_test: labels of the test images [m]; likewise.
        num_clients: N.
        argument: must be None.
        rng: the only source of randomness.

    Raises:
        PartitionError: if there is an argument.
    """
    if argument is not None:
        raise PartitionError(
            f"The partition 'iid' takes no argument, but it is {argument:g}; "
            "write 'iid'."
        )

    def parts(num):
        return [[part] for part in np.array_split(rng.permutation(num), num_clients)]

    return _deal.partition(parts(y_train.size), parts(y_test.size))
