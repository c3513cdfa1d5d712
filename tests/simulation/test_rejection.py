"""Who is rejected, and what becomes of its state."""

import jax
import numpy as np
import pytest

from fedjax_mrl.federation import Federation
from fedjax_mrl.runs import runner
from tests import helpers
from tests.helpers import assert_trees_equal

TOY = {"models": "mlp", "shared_model": "mlp", "num_clients": 3, "feature_dim": 8}
TOY["partition"] = "iid"
BY_CLASS = ("fd", "fedgen", "fedgh", "fedproto", "fedtgp")


def limited(algorithm, limit, **options):
    server = {"server.reject_nonfinite": True, "server.max_upload_norm": limit}
    return Federation(algorithm=algorithm, set=server | options, **TOY)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", BY_CLASS)
def test_a_client_is_not_rejected_for_having_many_examples(algorithm):
    # Hundreds of examples a client, and numbers of which none is far from 1.
    quick = {"server_epochs": 1} if algorithm in ("fedgh", "fedtgp") else {}
    quick = {f"algorithm.{name}": value for name, value in quick.items()}
    federation = limited(algorithm, 40.0, **quick)
    assert min(part.size for part in federation.train) > 200
    _, played = federation.play(federation.init())
    assert played.fetch().rejected == 0
    small = limited(algorithm, 1e-3, **quick)
    assert small.play(small.init())[1].fetch().rejected == 3


@pytest.mark.slow
def test_a_rejected_participant_of_fedapen_keeps_its_ensemble_weight():
    adapt = {"adapt_rate": 5.0}
    toy = helpers.toy("fedapen", cohort_size=8, **adapt)
    state, _ = toy.make()(toy.init())
    sent = {}
    for group in toy.groups:
        for i, client in enumerate(group.clients.tolist()):
            leaves = jax.tree.leaves(state.clients[group.name][1])
            sent[client] = np.sqrt(sum(np.square(leaf[i]).sum() for leaf in leaves))
    limit = float(np.median(list(sent.values())))
    before = toy.client_states(toy.init())
    toy.config = toy.config._replace(reject_nonfinite=True, max_upload_norm=limit)
    state, played = toy.make()(toy.init())
    after, played = toy.client_states(state), played.fetch()
    assert 0 < played.rejected < 8
    for client, sound in zip(played.reported.tolist(), played.sound, strict=True):
        assert sound == (sent[client] <= limit)
        if sound:
            assert after[client].weight != before[client].weight
        else:
            assert_trees_equal(after[client], before[client])


@pytest.mark.parametrize(
    "name", ["fedgh", pytest.param("fedtgp", marks=pytest.mark.slow)]
)
def test_a_prototype_that_is_no_number_is_seen_and_can_be_left_out(name):
    quick = {"server_epochs": 2}
    toy = helpers.toy(name, cohort_size=8, **quick)

    def poisoned():
        state = jax.device_get(toy.init())
        group = toy.groups[0]
        spoil = lambda leaf: np.where(np.arange(len(leaf)) == 1, np.nan, leaf.T).T
        private, shared = state.clients[group.name]
        private = jax.tree.map(lambda leaf: spoil(leaf).astype(leaf.dtype), private)
        clients = {**state.clients, group.name: (private, shared)}
        return jax.device_put(state._replace(clients=clients))

    bad = int(toy.groups[0].clients[1])
    _, played = toy.make()(poisoned())
    told = runner.divergence(played.fetch(), 1)
    # The server learns from what was uploaded, and not from zeros in its place.
    assert f"client {bad}: " in told and "the server: state" in told
    toy.config = toy.config._replace(reject_nonfinite=True)
    _, played = toy.make()(poisoned())
    played = played.fetch()
    assert played.rejected == 1 and bool(played.server_finite)
