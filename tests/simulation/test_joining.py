"""What is frozen stays bit for bit in every method, and the rest trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import rng
from fedjax_mrl.learning import freezing
from fedjax_mrl.protocol import Batches, Visit
from fedjax_mrl.simulation import joining
from tests.helpers import assert_trees_equal, methods, toy

# Their clients read what is shared and train none of it.
READERS = {"standalone", "fd", "fedproto", "fedtgp"}


def trained(name, *, frozen):
    """Broadcast, first private state, and what six steps make of them."""
    made = toy(name)
    key = rng.key(0, rng.Purpose.PERSONALIZATION, 1, 2)
    table = lambda first, count: Batches(
        first + np.arange(4 * count, dtype=np.int32).reshape(count, 4), np.int32(count)
    )
    visit = jax.tree.map(
        jnp.asarray,
        Visit(made.examples, table(0, 6), table(0, 6), table(24, 1), np.int32(1)),
    )
    server = made.algorithm.server

    @jax.jit
    def play(key):
        client = joining.alone(made.algorithm, frozen=frozen).client(made.models[0])
        broadcast, state = server.broadcast(server.init(key)), client.init(key)
        out = client.update(broadcast, state, visit, key)
        return broadcast, state, out

    return jax.device_get(play(key))


def equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", methods())
def test_frozen_is_frozen_bit_for_bit_and_the_private_part_trains(name):
    broadcast, state, out = trained(name, frozen=True)
    assert_trees_equal(out.shared, broadcast)
    if jax.tree.leaves(state):  # FedAvg and FedProx have nothing of their own
        assert not equal(out.state, state)
    assert np.isfinite(out.metrics["total"]).all()


@pytest.mark.parametrize("name", methods())
def test_fine_tuned_trains_what_clients_train_in_the_rounds(name):
    broadcast, _, out = trained(name, frozen=False)
    assert equal(out.shared, broadcast) == (name in READERS)


def test_a_part_is_told_by_identity_and_comes_back_to_its_place():
    a, b, c = np.ones(2), np.ones(2), np.zeros(1)
    networks = {"one": (a, ()), "other": [b, c]}
    moving, fixed = freezing.part(networks, {"any": b})
    assert fixed == {"one": (None, ()), "other": [b, None]}
    assert moving == {"one": (a, ()), "other": [None, c]}
    joined = freezing.join(moving, fixed)
    assert freezing.same(joined, networks) and not freezing.same(joined["one"], (b,))
