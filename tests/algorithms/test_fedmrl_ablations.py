"""Methods that are FedMRL with one part changed: what changes, what stays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.fedmrl import Trained
from fedjax_mrl.protocol import Batches, Cohort, Visit
from tests import helpers
from tests.helpers import assert_trees_equal

SAME = {
    "fedmrl_last_client": {"aggregation": "last_client"},
    "fedmrl_no_mrl": {"readout": "local"},
    "fedmrl_no_mrl_full": {"readout": "full"},
}


def toy(name, **options):
    return helpers.Toy(name, same=True, cohort_size=3, epochs=1, **options)


@pytest.mark.parametrize("name", SAME)
def test_an_ablation_is_fedmrl_with_its_option(name):
    own, option = toy(name).algorithm, toy("fedmrl", **SAME[name]).algorithm
    assert own.heads == option.heads
    state = own.server.init(jax.random.key(0))
    assert_trees_equal(state, option.server.init(jax.random.key(0)))
    uploads = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, 4 * leaf]), state)
    after, expected = (
        method.server.update(
            state,
            uploads,
            Cohort(jnp.array([1.0, 2.0, 3.0]), jnp.int32(1), jax.random.key(1)),
        )
        for method in (own, option)
    )
    assert_trees_equal(after, expected)
    mean = jax.tree.map(lambda leaf: (leaf + 4 * leaf + 12 * leaf) / 6, state)
    averaged = name != "fedmrl_last_client"
    pairs = zip(jax.tree.leaves(after), jax.tree.leaves(mean), strict=True)
    assert all(np.allclose(a, b, rtol=1e-5) == averaged for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_an_ablation_has_the_bits_of_fedmrl_with_its_option(name):
    after = toy(name).after(2)
    assert_trees_equal(after, toy("fedmrl", **SAME[name]).after(2))
    state, plain = (jax.tree.leaves(s.server) for s in (after, toy("fedmrl").after(2)))
    assert len(state) != len(plain) or any(
        a.shape != b.shape or (a != b).any() for a, b in zip(state, plain, strict=True)
    )


def visit(made, steps=3):
    """Three minibatches of client 3, by hand."""
    index = np.full((8, 4), -1, np.int32)
    index.ravel()[:30] = made.train[3]
    table = Batches(jnp.asarray(index), jnp.int32(steps))
    return Visit(made.examples, table, table, table, jnp.int32(1))


@functools.cache
def visited(name, **options):
    """A client's broadcast and state, and what a visit by hand makes of them."""
    made = toy(name, **options)
    client = made.algorithm.client(made.models[0])
    broadcast = made.algorithm.server.init(jax.random.key(0))
    state = client.init(jax.random.key(1))
    out = jax.jit(client.update)(broadcast, state, visit(made), jax.random.key(2))
    return client, broadcast, state, out


def test_a_forgotten_projector_is_trained_beside_the_others_and_dropped():
    _, _, state, out = visited("fedmrl_frozen_projector")
    _, _, same, plain = visited("fedmrl")
    assert_trees_equal(state, same)
    # All else has the bits of FedMRL, whose projector moved in the same steps.
    assert_trees_equal(out.upload, plain.upload)
    assert_trees_equal(out.shared, plain.shared)
    assert_trees_equal(out.state.private, plain.state.private)
    assert_trees_equal(out.metrics, plain.metrics)
    assert_trees_equal(out.state.projector, state.projector)
    assert (plain.state.projector["kernel"] != state.projector["kernel"]).any()


def test_a_test_reads_the_networks_through_the_initial_projector():
    client, _, state, out = visited("fedmrl_frozen_projector")
    trained, _, _, plain = visited("fedmrl")
    x = toy("fedmrl").examples.x[:6].astype(jnp.float32) / 255
    found = client.predict(out.shared, out.state, x)
    mixed = plain.state._replace(projector=state.projector)
    assert_trees_equal(found, trained.predict(plain.shared, mixed, x))
    kept = trained.predict(plain.shared, plain.state, x)
    assert (found["mix_large"] != kept["mix_large"]).any()
    assert_trees_equal(found["single_large"], kept["single_large"])


def test_a_fixed_projector_has_no_step_and_the_others_learn_beside_it():
    # One step down the gradient, so that what the others do is FedMRL's first step.
    plain = {"momentum": 0.0, "weight_decay": 0.1, "clip_norm": 0.0}
    made = toy("fedmrl_frozen_projector", projector="fixed", **plain)
    client = made.algorithm.client(made.models[0])
    free = toy("fedmrl", **plain).algorithm.client(made.models[0])
    broadcast = made.algorithm.server.init(jax.random.key(0))
    state = client.init(jax.random.key(1))
    given, key = visit(made, steps=1), jax.random.key(2)
    out = jax.jit(client.update)(broadcast, state, given, key)
    other = jax.jit(free.update)(broadcast, state, given, key)
    assert_trees_equal(out.state.projector, state.projector)
    found, expected = (Trained(o.shared, *o.state) for o in (out, other))
    helpers.assert_trees_close(found.shared, expected.shared, atol=1e-6)
    helpers.assert_trees_close(found.private, expected.private, atol=1e-6)
    assert (expected.projector["kernel"] != state.projector["kernel"]).any()
    # From the second step on the others differ too: they learn beside another one.
    given = visit(made)
    out = jax.jit(client.update)(broadcast, state, given, key)
    _, _, _, forgotten = visited("fedmrl_frozen_projector", **plain)
    different = (
        out.state.private.header["bias"] != forgotten.state.private.header["bias"]
    )
    assert different.any()


@pytest.mark.slow
@pytest.mark.parametrize("projector", ["forgotten", "fixed"])
def test_the_projector_has_the_same_bits_after_all_rounds(projector):
    made = toy("fedmrl_frozen_projector", projector=projector)
    first = made.client_states(made.init())
    last = made.client_states(made.after(3))
    for client, before in first.items():
        assert_trees_equal(before.projector, last[client].projector)
    moved = [
        (before.private.header["bias"] != last[client].private.header["bias"]).any()
        for client, before in first.items()
    ]
    assert sum(moved) >= 3


def test_another_projector_is_refused():
    with pytest.raises(ValueError, match="forgotten or fixed; got 'kept'"):
        algorithms.build(
            "fedmrl_frozen_projector", toy("fedmrl").setup, projector="kept"
        )
