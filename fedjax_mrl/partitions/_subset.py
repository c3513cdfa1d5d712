"""A part of a data set that keeps the shares of its classes."""

import numpy as np

from fedjax_mrl import rng
from fedjax_mrl.partitions._deal import apportion
from fedjax_mrl.partitions._partition import PartitionError


def subset(part: str, y: np.ndarray, number: int | None, seed: int) -> np.ndarray:
    """Draws some images of one part of a data set.

    Every class keeps its share, rounded, and at least one image. Of a class a larger
    draw contains a smaller one, where the shares do not shrink.

    Args:
        part: "train" or "test".
        y: labels [n].
        number: how many images; None is all of them.
        seed: the data seed.

    Returns:
        int32 positions [number], sorted.

    Raises:
        PartitionError: if there are not so many images, or more classes.

    Example:
        >>> y = np.arange(100) % 4
        >>> np.bincount(y[subset("train", y, 10, seed=0)])
        array([3, 3, 2, 2])
    """
    if number is None:
        return np.arange(y.size, dtype=np.int32)
    classes, counts = np.unique(y, return_counts=True)
    if not classes.size <= number <= y.size:
        raise PartitionError(
            f"--limit-{part} must be from {classes.size}, the classes, to {y.size}, "
            f"the {part} images; got {number}."
        )
    spare = number - classes.size
    wanted = 1 + (apportion(spare, counts - 1) if spare else 0 * counts)
    draw = rng.host(seed, rng.Purpose.SUBSET, ("train", "test").index(part))
    order = draw.permutation(y.size)
    chosen = [
        order[y[order] == label][:count]
        for label, count in zip(classes, wanted, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int32)
