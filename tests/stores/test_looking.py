"""States that are looked at, uncopied, and those that are handed out."""

import jax
import numpy as np

import fedjax_mrl as fm
from fedjax_mrl import sharding, stores
from fedjax_mrl.simulation.state import look_at_clients, read_clients
from tests.helpers import assert_trees_equal


def test_the_digest_looks_at_states_and_users_get_copies():
    federation = fm.Federation(
        models=("mlp",), shared_model="mlp", num_clients=5, client_store="host"
    )
    state, _ = federation.play(federation.init())
    asked = state, federation.groups, np.array([0, 3]), federation.store
    once, again = look_at_clients(*asked), look_at_clients(*asked)
    copies = read_clients(*asked)
    assert_trees_equal(once, copies)
    three = map(jax.tree.leaves, (once, again, copies))
    for one, other, copy in zip(*three, strict=True):
        assert np.shares_memory(one, other)
        assert not np.shares_memory(one, copy)


def test_each_row_is_what_reading_all_gives(tmp_path):
    rows = np.array([2, 0, 1], np.int32)
    fresh = lambda rows: {"a": np.float32(rows)[:, None] * np.ones(3, np.float32)}
    for kind in ("device", "host", "disk"):
        store = stores.make(kind, sharding.mesh(1), tmp_path)
        pair = store.create("p", 3, fresh), store.create("s", 3, fresh)
        values = ({"a": np.full((1, 3), 7, np.float32)},) * 2
        (pair,) = store.put(
            [pair], np.zeros(1, int), np.array([1], np.int32), jax.device_put(values)
        )
        stacks = store.read(pair, rows)
        for place, each in enumerate(store.each(pair, rows)):
            want = jax.tree.map(lambda leaf, place=place: leaf[place], stacks)
            assert_trees_equal(each, want)
        assert stacks[0]["a"][:, 0].tolist() == [2, 0, 7]
