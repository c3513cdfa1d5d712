"""What must hold for every algorithm, whatever it does. New ones enter by existing."""

import collections
import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import tree
from fedjax_mrl.protocol import Batches, Visit
from fedjax_mrl.simulation import cohorts as turns
from fedjax_mrl.simulation.state import State
from tests import helpers
from tests.helpers import assert_trees_close, assert_trees_equal

every_algorithm = pytest.mark.parametrize("name", helpers.names())
# Parts of a client that a method keeps as they were initialised.
KEPT = {"fedmrl_frozen_projector": {"projector"}}


class Rounds(NamedTuple):
    """An algorithm's toy, its round compiled once, and states of some rounds."""

    toy: helpers.Toy
    play: Callable
    evaluate: Callable
    states: list[State]  # on the host
    cohorts: list[np.ndarray]
    sampled: dict[int, np.ndarray]  # round -> participants other than the usual
    traces: collections.Counter  # architecture -> how often its visit was traced


@functools.cache
def played(name):
    sampled = {}

    def sample(round):
        usual = turns.cohort(0, round, num_clients=8, cohort_size=5)
        return sampled.get(round, usual)

    toy = helpers.toy(name, sample=sample)
    plain, traces = toy.algorithm.client, collections.Counter()

    def counted(model):
        client = plain(model)

        def update(*arguments):
            traces[model.name] += 1
            return client.update(*arguments)

        return client._replace(update=update)

    toy.algorithm = toy.algorithm._replace(client=counted)
    play = toy.make()
    toy.algorithm = toy.algorithm._replace(client=plain)
    states, cohorts = [jax.device_get(toy.init())], []
    for _ in range(4):
        state, report = play(jax.device_put(states[-1]))
        states.append(jax.device_get(state))
        cohorts.append(report.cohort)
    return Rounds(toy, play, toy.evaluate(), states, cohorts, sampled, traces)


def visit(toy, client, steps=None):
    """A visit by hand, in order, with all minibatches of one pass."""
    positions = toy.train[client]
    index = np.full((8, 4), -1, np.int32)
    index.ravel()[: positions.size] = positions
    count = -(-positions.size // 4) if steps is None else steps
    table = Batches(jnp.asarray(index), jnp.int32(count))
    held = np.full((1, 4), -1, np.int32)
    held[0, :2] = toy.holdout[client]
    holdout = Batches(jnp.asarray(held), jnp.int32(1))
    return Visit(toy.examples, table, table, holdout, jnp.int32(2))


@functools.cache
def still(name):
    """A compiled visit of the first architecture at learning rate zero."""
    toy = helpers.toy(name, learning_rate=0.0)
    return jax.jit(toy.algorithm.client(toy.models[0]).update)


@every_algorithm
def test_every_architecture_uploads_the_same_shapes(name):
    toy = helpers.toy(name)
    server = jax.eval_shape(toy.algorithm.server.init, jax.random.key(0))
    broadcast = jax.eval_shape(toy.algorithm.server.broadcast, server)
    found = []
    for model in toy.models:
        client = toy.algorithm.client(model)
        state = jax.eval_shape(client.init, jax.random.key(0))
        out = jax.eval_shape(
            client.update, broadcast, state, visit(toy, 0), jax.random.key(0)
        )
        chex.assert_trees_all_equal_shapes_and_dtypes(out.shared, broadcast)
        chex.assert_trees_all_equal_shapes_and_dtypes(out.state, state)
        found.append(out.upload)
    chex.assert_trees_all_equal_shapes_and_dtypes(*found, found[0])


@pytest.mark.parametrize("name", helpers.methods())
def test_the_server_state_keeps_its_shapes(name):
    states = played(name).states
    for state in states:
        chex.assert_trees_all_equal_shapes_and_dtypes(state.server, states[0].server)


@every_algorithm
def test_clients_that_are_not_sampled_keep_their_state(name):
    case = played(name)
    toy, states, cohorts = case.toy, case.states, case.cohorts
    before, after = toy.client_states(states[0]), toy.client_states(states[1])
    absent = sorted(set(range(8)) - set(cohorts[0].tolist()))
    assert absent
    for client in absent:
        assert_trees_equal(before[client], after[client])


@every_algorithm
def test_every_part_of_a_participant_is_trained_and_kept(name):
    case = played(name)
    toy, states, cohorts = case.toy, case.states, case.cohorts
    before, after = toy.client_states(states[0]), toy.client_states(states[1])
    for client in cohorts[0].tolist():
        for part, new in after[client]._asdict().items():
            if not jax.tree.leaves(new):
                continue  # an optional part that this method does not use
            old = getattr(before[client], part)
            if part in KEPT.get(name, ()):
                assert_trees_equal(old, new)
                continue
            leaves = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
            assert any((a != b).any() for a, b in leaves), (client, part)


@every_algorithm
def test_playing_on_from_a_stored_state_is_as_if_never_stopped(name):
    case = played(name)
    play, states = case.play, case.states
    again = jax.device_put(states[2])
    for _ in range(2):
        again, _ = play(again)
    assert_trees_equal(again, states[4])


@pytest.mark.slow
@every_algorithm
def test_computing_several_clients_at_once_changes_little(name):
    states = played(name).states
    # Three at once: five participants in two groups leave chunks partly empty.
    after = helpers.toy(name, chunk=3).after(1, jax.device_put(states[0]))
    assert_trees_close(after, states[1], atol=2e-5)


@every_algorithm
def test_the_order_of_participants_changes_no_bit(name):
    case = played(name)
    play, states, cohorts, sampled = case.play, case.states, case.cohorts, case.sampled
    sampled[1] = cohorts[0][::-1].tolist()
    try:
        after, report = play(jax.device_put(states[0]))
    finally:
        sampled.clear()
    assert_trees_equal(after, states[1])
    np.testing.assert_array_equal(report.cohort, cohorts[0])


@every_algorithm
def test_a_round_in_which_nobody_counts_changes_nothing(name):
    case = played(name)
    case.sampled[2] = []
    try:
        after, report = case.play(jax.device_put(case.states[1]))
    finally:
        case.sampled.clear()
    assert report.cohort.size == 0 and after.round == 2
    assert_trees_equal(after._replace(round=1), case.states[1])


@every_algorithm
def test_examples_of_other_clients_have_no_influence(name):
    toy, states = played(name).toy, played(name).states
    client = toy.algorithm.client(toy.models[0])
    state = toy.client_states(states[1])[0]
    broadcast = toy.algorithm.server.broadcast(states[1].server)
    update = jax.jit(client.update)
    own = np.concatenate([toy.train[0], toy.holdout[0]])
    x = np.array(toy.examples.x)
    others = np.setdiff1d(np.arange(len(x)), own)
    x[others] = 255 - x[others]
    given = visit(toy, 0)
    changed = given._replace(examples=toy.examples._replace(x=jnp.asarray(x)))
    key = jax.random.key(1)
    assert_trees_equal(
        update(broadcast, state, given, key), update(broadcast, state, changed, key)
    )


@every_algorithm
def test_a_client_predicts_without_other_clients_private_states(name):
    case = played(name)
    toy, evaluate, states = case.toy, case.evaluate, case.states
    state = states[2]
    plain = evaluate(state)
    group = toy.groups[0].name
    signs = lambda leaf: np.where(np.arange(len(leaf)) < 1, 1, -1)
    private, shared = state.clients[group]
    other = jax.tree.map(
        lambda leaf: (leaf.T * signs(leaf)).T.astype(leaf.dtype), private
    )
    clients = {**state.clients, group: (other, shared)}
    perturbed = evaluate(state._replace(clients=clients))
    mine = int(toy.groups[0].clients[0])
    rest = np.concatenate([g.clients for g in toy.groups[1:]] or [[]]).astype(int)
    for client in (mine, *rest):
        np.testing.assert_array_equal(
            plain.loss_sum[..., client], perturbed.loss_sum[..., client]
        )
    np.testing.assert_array_equal(plain.num_test, [part.size for part in toy.test])


@every_algorithm
def test_evaluation_counts_every_test_example_once(name):
    case = played(name)
    toy, evaluate, states = case.toy, case.evaluate, case.states
    scores = evaluate(states[2])
    client, group = toy.groups[0].clients[1], toy.groups[0]
    private, own = tree.take(states[2].clients[group.name], 1)
    broadcast = toy.algorithm.server.broadcast(states[2].server)
    index = jnp.asarray(toy.test[client])
    x, y = toy.setup.prepare.test(toy.examples.x, index), toy.examples.y[index]
    for p, shared in enumerate((own, broadcast)):
        logits = toy.algorithm.client(group.model).predict(shared, private, x)
        assert set(logits) == set(toy.algorithm.heads)
        for h, head in enumerate(toy.algorithm.heads):
            right = int((logits[head].argmax(-1) == y).sum())
            assert scores.correct[p, h, client] == right
            log_p = jax.nn.log_softmax(logits[head])
            loss = -float(log_p[jnp.arange(len(y)), y].sum())
            np.testing.assert_allclose(
                scores.loss_sum[p, h, client], loss, rtol=1e-4, atol=1e-4
            )


@every_algorithm
def test_learning_rate_zero_trains_no_network(name):
    toy, states = played(name).toy, played(name).states
    state = toy.client_states(states[1])[0]
    broadcast = toy.algorithm.server.broadcast(states[1].server)
    out = still(name)(broadcast, state, visit(toy, 0), jax.random.key(1))
    assert_trees_equal(out.state, state)
    assert_trees_equal(out.shared, broadcast)


@every_algorithm
def test_nothing_private_is_in_an_upload(name):
    # Without training, what is uploaded may depend on the private state only as
    # statistics by class (prototypes, logits), never as parameters.
    toy, states = played(name).toy, played(name).states
    update = still(name)
    state = toy.client_states(states[1])[0]
    broadcast = toy.algorithm.server.broadcast(states[1].server)
    perturbed = jax.tree.map(lambda leaf: leaf * 0.7, state)
    plain, other = (
        update(broadcast, s, visit(toy, 0), jax.random.key(1)).upload
        for s in (state, perturbed)
    )
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        if not np.array_equal(a, b):
            assert a.ndim == 2 and a.shape[0] == toy.num_classes, a.shape


@every_algorithm
def test_no_program_is_traced_again_after_the_first_round(name):
    case = played(name)
    toy, play, states, sampled, traces = (
        case.toy,
        case.play,
        case.states,
        case.sampled,
        case.traces,
    )
    before = dict(traces)
    assert set(before) == {group.name for group in toy.groups}
    draw = np.random.default_rng(0)
    # From one participant to all five, in either group or in both.
    sizes = [1, 2, 3, 4, 5] * 4
    sampled.update(
        {
            round: np.sort(draw.choice(8, size, replace=False))
            for round, size in enumerate(sizes, start=1)
        }
    )
    state = jax.device_put(states[0])
    try:
        for _ in sizes:
            state, report = play(state)
            assert report.cohort.size == sizes[state.round - 1]
    finally:
        sampled.clear()
    assert traces == before


@every_algorithm
def test_traffic_is_that_of_the_trees_that_cross(name):
    case = played(name)
    toy, play, states = case.toy, case.play, case.states
    state = jax.device_put(states[1])
    broadcast = toy.algorithm.server.broadcast(state.server)
    _, report = play(state)
    if toy.algorithm.server.broadcast_bytes is None:
        assert int(report.bytes_down) == tree.num_bytes(broadcast)
    else:
        assert 0 < int(report.bytes_down) <= tree.num_bytes(broadcast)
    client = toy.algorithm.client(toy.models[0])
    private = jax.eval_shape(client.init, jax.random.key(0))
    out = jax.eval_shape(
        client.update, broadcast, private, visit(toy, 0), jax.random.key(0)
    )
    limit = tree.num_bytes(out.upload)
    assert (report.bytes_up <= limit).all()
    if out.upload_bytes is None:
        assert (report.bytes_up == limit).all()
