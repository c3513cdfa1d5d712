"""Positions of a client's examples, cut into minibatches. NumPy, on the host."""

from collections.abc import Sequence

import numpy as np

from fedjax_mrl import rng
from fedjax_mrl.protocol import Batches


def num_steps(num_examples: int, batch_size: int, epochs: int = 1) -> int:
    """Minibatches in `epochs` passes; the last one of a pass may be partial."""
    return epochs * -(-num_examples // batch_size)


def fitting(batch_size: int, positions: Sequence[np.ndarray]) -> int:
    """The batch size at which the client with most examples is hardly padded.

    A minibatch is never larger than all that a client has, and what pads it is
    computed too. Rounded up to a multiple of 16, once the size of a convolution's
    blocks; last bits depend on it.
    """
    largest = max((client.size for client in positions), default=0)
    return min(batch_size, max(16, -(-largest // 16) * 16))


def in_order(positions: Sequence[np.ndarray], batch_size: int) -> Batches:
    """Every client's examples once, in order: index [N, S, B], steps [N].

    S is that of the largest client; -1 fills the rest.
    """
    steps = np.array([num_steps(p.size, batch_size) for p in positions], np.int32)
    index = np.full((len(positions), max(steps.max(), 1) * batch_size), -1, np.int32)
    for row, examples in zip(index, positions, strict=True):
        row[: examples.size] = examples
    return Batches(index.reshape(len(positions), -1, batch_size), steps)


def local_epochs(
    positions: Sequence[np.ndarray],
    round: int,
    client: int,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
) -> np.ndarray:
    """One client's shuffled local epochs of one round: [S, B].

    The order is a function of (seed, round, client).

    Args:
        positions: of each client's examples, by client id.
        round: counted from 1.
        client: whose epochs.
        seed: the run's seed.
        epochs: passes, each freshly shuffled; the last batch of each may be
            partial, filled with -1.
        batch_size: B.
    """
    draw = rng.host(seed, rng.Purpose.SCHEDULE, round, client)
    return shuffled(draw, positions[client], epochs, batch_size)


def shuffled(
    draw: np.random.Generator, examples: np.ndarray, epochs: int, batch_size: int
) -> np.ndarray:
    """Passes over examples, each freshly shuffled: [S, B], see `local_epochs`."""
    per_epoch = num_steps(examples.size, batch_size)
    index = np.full((epochs, per_epoch * batch_size), -1, np.int32)
    for epoch in index:
        epoch[: examples.size] = draw.permutation(examples)
    return index.reshape(epochs * per_epoch, batch_size)
