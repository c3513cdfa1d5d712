"""What is random differs by client and by round.

All training images of these clients are equal, so that neither the split nor the order
of examples makes a difference: only augmentation does.
"""

import functools

import jax
import numpy as np
import pytest

from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.federation import Federation
from fedjax_mrl.partitions import Partition
from tests.helpers import copy


@functools.cache
def federation(augmentation):
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1))
    x = np.repeat(image, 12, axis=0).astype(np.uint8)
    y = np.zeros(12, np.int32)
    y[8:] = 1  # nobody's; a data set has more than one class
    parts = tuple(np.split(np.arange(8, dtype=np.int32), 2))
    data = Dataset("toy", x, y, x, y, ("a", "b"), (0.5,), (0.25,), augmentation)
    return Federation(
        algorithm="standalone",
        dataset=data,
        partition=Partition(parts, parts),
        models=("mlp",),
        shared_model="mlp",
        num_clients=2,
        feature_dim=4,
        batch_size=4,
    )


def networks(augmentation, round, seed=None):
    """The first layer of both clients after a round, from the same weights."""
    built = federation(augmentation)
    start = copy(built.init())._replace(round=round - 1)
    trial = built.trial._replace(seed=built.trial.seed if seed is None else seed)
    ((state, _),) = built.play_together([trial], [start])
    ((states, _),) = jax.device_get(list(state.clients.values()))
    return states.private.extractor["fc1"]["kernel"]


@pytest.mark.parametrize("augmentation", ["none", "flip_erase_crop"])
def test_clients_rounds_and_seeds_draw_other_augmentations(augmentation):
    first, later = networks(augmentation, 1), networks(augmentation, 2)
    seeded = networks(augmentation, 1, seed=1)
    random = augmentation != "none"
    for one, other in (
        (first[0], first[1]),
        (first[0], later[0]),
        (first[1], later[1]),
        (first[0], seeded[0]),
    ):
        assert np.array_equal(one, other) != random
    np.testing.assert_array_equal(networks(augmentation, 1), first)
