"""`aggregation=last_client`: one participant of each round wins, drawn at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.learning import servers
from fedjax_mrl.protocol import Cohort
from tests import helpers
from tests.helpers import assert_trees_equal


def test_every_participant_that_counts_wins_equally_often():
    weights = jnp.array([3.0, 0.0, 9.0, 1.0, 0.0])
    uploads = {"w": jnp.arange(5, dtype=jnp.float32)}

    @jax.jit
    @jax.vmap
    def winner(key):
        cohort = Cohort(weights, jnp.int32(1), key)
        return servers.aggregate(uploads, cohort, "last_client")["w"]

    draws = 900
    won = np.asarray(winner(jax.random.split(jax.random.key(0), draws)), int)
    counts = np.bincount(won, minlength=5)
    assert counts[1] == counts[4] == 0
    # Five standard deviations of a binomial variable, whatever the weights.
    assert (abs(counts[[0, 2, 3]] - draws / 3) < 5 * np.sqrt(draws * 2 / 9)).all()


def winners(toy, play, seed, rounds=24):
    """Whose network the server took, and whether it is the highest id, by round."""
    state, found = toy.init(), []
    for _ in range(rounds):
        state, played = play(state, seed)
        copies = np.zeros((8, 2), np.float32)
        for group in toy.groups:
            _, shared = state.clients[group.name]
            copies[group.clients] = shared.header["bias"][:, :2]
        mine = np.asarray(state.server.header["bias"][:2])
        same = [int(c) for c in played.reported if (copies[c] == mine).all()]
        assert len(same) == 1
        found.append((same[0], same[0] == max(played.reported)))
    return found, jax.device_get(state.server)


@pytest.mark.slow
def test_rounds_have_winners_by_chance_and_by_seed():
    toy = helpers.toy("fedmrl", cohort_size=4, epochs=1, aggregation="last_client")
    toy.config = toy.config._replace(dropout=0.2)
    play = toy.make()
    found, server = winners(toy, play, seed=0)
    assert len({client for client, _ in found}) > 4
    assert {highest for _, highest in found} == {False, True}
    again, same = winners(toy, play, seed=0)
    assert again == found
    assert_trees_equal(server, same)
    assert winners(toy, play, seed=1)[0] != found
