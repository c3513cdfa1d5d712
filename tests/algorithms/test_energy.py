"""FedKD with an energy of 1: what it sends is what it learned, to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.learning import compression
from tests.algorithms.tiny import WIDTH, Tiny
from tests.helpers import assert_trees_equal

DENSE = 39 * 4  # bytes of the shared network


def test_full_energy_keeps_every_bit_and_every_rank_in_float32():
    draw = np.random.default_rng(0)
    update = {
        "tall": jnp.asarray(draw.normal(size=(80, 30)) * 0.5 ** np.arange(30)),
        "wide": jnp.asarray(draw.normal(size=(20, 60))),
        "bias": jnp.asarray(draw.normal(size=7)),
    }
    update = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), update)
    compress = jax.jit(compression.compress)
    found = compress(update, jnp.float32(1))
    assert_trees_equal(found.values, update)
    assert jax.tree.map(int, found.ranks) == {"tall": 30, "wide": 20, "bias": 0}
    dense = sum(leaf.size for leaf in jax.tree.leaves(update)) * 4
    assert compression.num_bytes(*found) == dense
    assert int(compress(update, jnp.float32(0.9)).ranks["tall"]) < 5


def test_an_energy_that_grows_to_one_sends_everything_in_the_last_round():
    ours = Tiny("fedkd", widths=(WIDTH,), energy_start=0.9, energy_end=1.0)
    played = [played for _, played in ours.play(3)]
    assert (played[0].bytes_up < DENSE).any()
    np.testing.assert_array_equal(played[2].bytes_up, [DENSE] * 3)


def test_the_server_replaces_its_model_by_the_exact_mean():
    ours = Tiny("fedkd", widths=(WIDTH,), energy_start=1.0, energy_end=1.0)
    first = ours.init()
    old = jax.device_get(first.server.shared)
    ((state, _),) = ours.play(1, first)
    copies = [ours.of_client(state, k)[1] for k in range(3)]
    moved = [jax.tree.map(np.subtract, copy, old) for copy in copies]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *moved)
    expected = jax.tree.map(np.add, old, mean)
    gaps = jax.tree.map(lambda a, b: abs(a - b).max(), state.server.shared, expected)
    assert max(map(float, jax.tree.leaves(gaps))) < 2e-7


@pytest.mark.parametrize("shape", [(60, 20), (20, 60)])
def test_no_product_of_a_truncation_has_a_transposed_left_factor(shape):
    """XLA's kernel for those has sums that depend on the number of threads."""
    tree = {"kernel": jnp.ones(shape)}
    compiled = jax.jit(compression.compress).lower(tree, jnp.float32(0.9)).compile()
    products = [line for line in compiled.as_text().splitlines() if " dot(" in line]
    assert len(products) > 2
    assert not [line for line in products if "lhs_contracting_dims={0}" in line]
