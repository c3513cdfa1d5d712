"""FedGH against the oracle, and the laws of its server."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms import fedgh
from fedjax_mrl.learning import pairs, prototypes
from fedjax_mrl.learning.headers import ClientState
from fedjax_mrl.protocol import Batches, Cohort
from tests import oracle
from tests.helpers import Toy, assert_trees_equal

PATHS = oracle.cases("fedgh")


def build(setup, options):
    return algorithms.build(
        "fedgh",
        setup,
        server_lr=options["server_lr"],
        server_epochs=options["server_epochs"],
        server_batch_size=options["server_batch"],
    )


def given_order(case):
    """The case's minibatches of pairs, for both rounds, as positions in ours.

    The case lists the pairs that exist; ours are all classes of all participants.
    """
    tables = []
    for round in (1, 2):
        listed = [
            row * 10 + label
            for row, k in enumerate(case.participants(round))
            for label in np.flatnonzero(case.data[f"r{round}.c{k}.proto_counts"])
        ]
        labels = [place % 10 for place in listed]
        np.testing.assert_array_equal(labels, case.data[f"r{round}.server.pairs_y"])
        given = case.data[f"r{round}.server.batches"]
        tables.append(np.where(given >= 0, np.array(listed)[given], -1))
    return jnp.asarray(np.stack(tables), jnp.int32)


def with_given_order(case):
    """The server, its minibatches taken from the case."""
    tables = given_order(case)
    header_model = case.setup.shared(case.setup.feature_dim)
    loss = functools.partial(fedgh.server_loss, header_model)

    def update(header, uploads, cohort):
        order = Batches(tables[cohort.round - 1], jnp.int32(tables.shape[1]))
        given = pairs.of_uploads(uploads, cohort)
        sgd = optax.sgd(case.options["server_lr"])
        return pairs.fit(loss, header, given, order, sgd, cohort.key)

    server = case.algorithm.server
    server = server._replace(update=lambda *given: update(*given)[0])
    case.algorithm = case.algorithm._replace(server=server)
    return update


def header(case, prefix):
    return {
        "kernel": case.array(f"{prefix}.fc3.w"),
        "bias": case.array(f"{prefix}.fc3.b"),
    }


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    train = jax.jit(with_given_order(case))
    server = header(case, "init.server.head")
    states = [
        ClientState(case.network(f"init.c{k}.large").extractor) for k in case.clients
    ]
    for round, state in enumerate(case.play(server, states), start=1):
        uploads = []
        for k in case.participants(round):
            out = case.update(round, k, server, states[k])
            difference.array(f"r{round}.c{k}.loss.ce", out.metrics["total"])
            difference.array(f"r{round}.c{k}.protos", out.upload.mean)
            difference.array(f"r{round}.c{k}.proto_counts", out.upload.count)
            states[k] = out.state
            uploads.append(out.upload)
        weights = jnp.ones(len(uploads), jnp.float32)
        cohort = Cohort(weights, jnp.int32(round), jax.random.key(0))
        uploads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *uploads)
        given = pairs.of_uploads(uploads, cohort)
        difference.array(f"r{round}.server.pairs_x", given.x[given.exists])
        difference.array(f"r{round}.server.loss", train(server, uploads, cohort)[1])
        server = state.server
        difference.array(f"r{round}.server.head.fc3.w", server["kernel"])
        difference.array(f"r{round}.server.head.fc3.b", server["bias"])
        for k in case.clients:
            private, copy = case.of_client(state.clients, k)
            if k in case.participants(round):
                network = case.network(f"init.c{k}.large")
                network = network._replace(extractor=private.extractor, header=copy)
                difference.network(f"r{round}.c{k}.large", network)
            for point, shared in (("local", copy), ("global", server)):
                logits = case.client(k).predict(shared, private, case.held())
                key = f"r{round}.eval_{point}.c{k}.logits"
                difference.array(key, logits["global"])
    return difference


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_two_rounds_equal_the_oracle_in_float64(path, x64):
    compare(path, jnp.float64).check(1e-9, at_least=110)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_two_rounds_equal_the_oracle_in_float32(path):
    compare(path, jnp.float32).check(2e-5, at_least=110)


@pytest.fixture(scope="module")
def played():
    """States before, between and after two rounds."""
    with jax.numpy_dtype_promotion("strict"):
        toy = Toy("fedgh", same=True)
        states, play = [toy.init()], toy.make()
        for _ in (1, 2):
            state, _ = play(jax.tree.map(jnp.copy, states[-1]))
            states.append(state)
        return toy, states


def test_the_global_header_moves_in_every_round(played):
    _, states = played
    kernels = [np.asarray(state.server["kernel"]) for state in states]
    assert np.abs(kernels[1] - kernels[0]).max() > 1e-4
    assert np.abs(kernels[2] - kernels[1]).max() > 1e-4


def test_the_toy_is_evaluated_without_nan(played):
    toy, states = played
    assert np.isfinite(toy.evaluate()(states[-1]).loss).all()


def test_visits_begin_with_the_global_header(played):
    toy, states = played
    client = toy.algorithm.client(toy.models[0])
    frozen = Toy("fedgh", same=True, learning_rate=0.0)
    out = frozen.after(1)
    for copy in np.asarray(out.clients["a"][1]["bias"]):
        np.testing.assert_array_equal(copy, states[0].server["bias"])
    x = toy.setup.prepare.test(toy.examples.x, jnp.arange(3))
    state = toy.client_states(states[1])[2]
    features = toy.models[0].features(state.extractor, x)
    header = states[1].server
    expected = features @ header["kernel"] + header["bias"][None, :]
    np.testing.assert_allclose(
        client.predict(header, state, x)["global"], expected, atol=1e-6
    )


def uploads(seed=0):
    """Three participants of 2, 3 and 1 classes out of four."""
    count = np.array([[2, 9, 0, 0], [4, 0, 2, 1], [0, 0, 3, 0]], np.float32)
    mean = np.random.default_rng(seed).normal(size=(3, 4, 8)).astype(np.float32)
    mean = np.where(count[..., None] > 0, mean, 0)
    return prototypes.ClassMeans(jnp.asarray(mean), jnp.asarray(count))


def cohort(*weights):
    return Cohort(jnp.asarray(weights, jnp.float32), jnp.int32(1), jax.random.key(5))


def test_only_pairs_that_exist_are_counted(played):
    toy, states = played
    given, members = uploads(), cohort(11, 7, 3)
    start = states[0].server
    got = toy.algorithm.server.update(start, given, members)
    # By hand: two epochs of one step, whose batch is all six pairs of the round.
    kernel, bias = (np.asarray(start[name], np.float64) for name in ("kernel", "bias"))
    rows, y = np.nonzero(np.asarray(given.count))
    x = np.asarray(given.mean, np.float64)[rows, y]
    for _ in range(2):
        z = x @ kernel + bias
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p = p / p.sum(axis=1, keepdims=True)
        gradient = (p - np.eye(4)[y]) / 6
        kernel, bias = kernel - 0.05 * x.T @ gradient, bias - 0.05 * gradient.sum(0)
    np.testing.assert_allclose(got["kernel"], kernel, atol=1e-6)
    np.testing.assert_allclose(got["bias"], bias, atol=1e-6)


def test_participants_without_weight_do_not_exist(played):
    toy, states = played
    update, start = toy.algorithm.server.update, states[0].server
    got = update(start, uploads(), cohort(11, 0, 3))
    broken = uploads()._replace(mean=uploads().mean.at[1].set(jnp.nan))
    assert_trees_equal(update(start, broken, cohort(11, 0, 3)), got)
    assert (got["bias"] != update(start, uploads(), cohort(11, 7, 3))["bias"]).any()


def ten_pairs():
    """Five of them exist: 1, 2, 5, 7 and 9."""
    exists = jnp.array([0, 1, 1, 0, 0, 1, 0, 1, 0, 1], bool)
    x = jax.random.normal(jax.random.key(0), (10, 3))
    return pairs.Pairs(x, jnp.arange(10, dtype=jnp.int32) % 4, exists)


@pytest.mark.parametrize("batch_size, steps", [(1, 15), (2, 9), (4, 6), (30, 3)])
def test_every_epoch_takes_every_pair_once(batch_size, steps):
    order = pairs.shuffled(jax.random.key(2), ten_pairs(), 3, batch_size)
    assert int(order.steps) == steps
    epochs = np.asarray(order.index)[:steps].reshape(3, -1)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch[epoch >= 0]), [1, 2, 5, 7, 9])
    if batch_size == 1:
        assert (epochs[0] != epochs[1]).any()


def test_no_pairs_are_no_steps():
    none = ten_pairs()._replace(exists=jnp.zeros(10, bool))
    order = pairs.shuffled(jax.random.key(2), none, 3, 4)
    assert int(order.steps) == 0
    assert (order.index == -1).all()


def test_a_model_of_another_width_or_task_is_refused():
    toy = Toy("fedgh")
    with pytest.raises(ValueError, match=r"feature_dim 8; odd has 5.*--feature-dim"):
        toy.algorithm.client(toy.small("odd", 6, 5))
    two = toy.small("two", 6)._replace(num_classes=2)
    with pytest.raises(ValueError, match=r"the 4 classes .*; two has 2.*one task"):
        toy.algorithm.client(two)


@pytest.mark.parametrize(
    "option", [{"server_lr": -0.1}, {"server_epochs": 0}, {"server_batch_size": 0}]
)
def test_values_out_of_range_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"{name} must be at least \d; got {value}"):
        Toy("fedgh", **option)
