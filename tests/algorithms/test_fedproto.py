"""FedProto against the oracle, and the laws of its prototypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms, protocol
from fedjax_mrl.algorithms.fedproto import Trained
from fedjax_mrl.learning import prototypes
from fedjax_mrl.protocol import Batch, Batches, Cohort, Visit
from tests import oracle
from tests.helpers import Toy, assert_trees_close

PATHS = oracle.cases("fedproto")


def build(setup, options):
    return algorithms.build("fedproto", setup, weight=options["lam"])


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    server = prototypes.Prototypes(jnp.zeros((10, 12), dtype), jnp.zeros(10, bool))
    states = [Trained(case.network(f"init.c{k}.large")) for k in case.clients]
    names = {"total": "total", "ce": "ce", "proto": "prototype"}
    for round, state in enumerate(case.play(server, states), start=1):
        for k in case.participants(round):
            out = case.update(round, k, server, states[k])
            for theirs, ours in names.items():
                difference.array(f"r{round}.c{k}.loss.{theirs}", out.metrics[ours])
            difference.array(f"r{round}.c{k}.protos", out.upload.mean)
            difference.array(f"r{round}.c{k}.proto_counts", out.upload.count)
            states[k] = out.state
        server = state.server
        difference.array(f"r{round}.server.protos", server.vector)
        difference.array(f"r{round}.server.proto_mask", server.known)
        for k in case.clients:
            private, _ = case.of_client(state.clients, k)
            if k in case.participants(round):
                difference.network(f"r{round}.c{k}.large", private.private)
            logits = case.client(k).predict(server, private, case.held())
            difference.array(f"r{round}.eval.c{k}.logits", logits["local"])
            far = logits["prototype"] <= protocol.UNKNOWN
            distance = jnp.where(far, jnp.inf, -logits["prototype"])
            difference.array(f"r{round}.eval.c{k}.proto_dist", distance)
    return difference


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_two_rounds_equal_the_oracle_in_float64(path, x64):
    compare(path, jnp.float64).check(1e-9, at_least=120)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_two_rounds_equal_the_oracle_in_float32(path):
    compare(path, jnp.float32).check(2e-5, at_least=120)


@pytest.fixture(scope="module")
def played():
    """States before, between and after two rounds, and what they reported."""
    with jax.numpy_dtype_promotion("strict"):
        toy = Toy("fedproto", same=True, weight=3.0)
        states, reports = [toy.init()], []
        play = toy.make()
        for _ in (1, 2):
            state, report = play(jax.tree.map(jnp.copy, states[-1]))
            states.append(state)
            reports.append(report)
        return toy, states, reports


def test_the_pull_is_zero_at_first_and_positive_afterwards(played):
    _, _, reports = played
    assert (reports[0].metrics["prototype"] == 0).all()
    assert (reports[1].metrics["prototype"] > 0).all()
    total = reports[1].metrics["ce"] + 3.0 * reports[1].metrics["prototype"]
    np.testing.assert_allclose(reports[1].metrics["total"], total, rtol=1e-5)


def test_the_toy_is_evaluated_without_nan(played):
    toy, states, _ = played
    scores = toy.evaluate()(states[-1])
    assert np.isfinite(scores.loss_sum).all()
    # Everybody has a loss with the newest prototypes; who never took part has none
    # with its own.
    np.testing.assert_array_equal(np.isfinite(scores.loss), scores.num_loss > 0)
    assert (scores.num_loss[1] == scores.num_test[None, :]).all()
    assert (scores.num_loss[0, 0] == 0).any()


@pytest.mark.slow
def test_without_weight_it_is_standalone_training():
    pulled, alone = (
        toy.client_states(toy.after(2))
        for toy in (
            Toy("fedproto", same=True, weight=0.0),
            Toy("standalone", same=True),
        )
    )
    for client, state in alone.items():
        assert_trees_close(pulled[client].private, state.private, atol=1e-6)


def test_prototypes_are_taken_from_the_trained_model(played):
    toy, states, _ = played
    model = toy.models[0]
    index = jnp.asarray(toy.train[1][:16].reshape(2, 8))
    visit = Visit(toy.examples, *[Batches(index, jnp.int32(2))] * 3, jnp.int32(1))
    out = jax.jit(toy.algorithm.client(model).update)(
        states[1].server, toy.client_states(states[1])[1], visit, jax.random.key(0)
    )
    x = toy.setup.prepare.test(toy.examples.x, index.ravel())
    features = np.asarray(model.features(out.state.private.extractor, x))
    y = np.asarray(toy.examples.y)[np.asarray(index).ravel()]
    for label in range(4):
        assert float(out.upload.count[label]) == (y == label).sum()
        mean = features[y == label].mean(axis=0)
        np.testing.assert_allclose(out.upload.mean[label], mean, atol=1e-6)


def test_a_class_without_prototype_contributes_no_gradient():
    draw = np.random.default_rng(0)
    features = jnp.asarray(draw.normal(size=(4, 5)), jnp.float32)
    batch = Batch(None, jnp.array([0, 1, 1, 2]), jnp.array([True, True, True, False]))
    server = prototypes.Prototypes(
        jnp.asarray(draw.normal(size=(3, 5)), jnp.float32),
        jnp.array([True, False, True]),
    )
    value, gradient = jax.value_and_grad(
        lambda features: prototypes.pull(server, features, batch)
    )(features)
    # Three examples exist; one of them, of class 0, is pulled.
    gap = np.asarray(features[0] - server.vector[0])
    np.testing.assert_allclose(value, (gap**2).mean() / 3, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], 2 * gap / (3 * 5), rtol=1e-5)
    assert (gradient[1:] == 0).all()


def test_the_nearest_prototype_wins_and_none_is_no_opinion():
    features = jnp.array([[1.0, 0.0], [0.0, 3.0]])
    vector = jnp.array([[1.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    known = prototypes.Prototypes(vector, jnp.array([True, True, False]))
    logits = prototypes.nearness(known, features)
    # Mean squared differences by hand: (0, 1) -> 1/2, (1, -3) -> 5.
    np.testing.assert_allclose(logits[0], [-0.5, -5.0, -1e9])
    np.testing.assert_array_equal(logits.argmax(axis=1), [0, 1])
    none = prototypes.nearness(known._replace(known=jnp.zeros(3, bool)), features)
    np.testing.assert_allclose(jax.nn.softmax(none), np.full((2, 3), 1 / 3), rtol=1e-6)


def test_a_class_is_forgotten_when_no_participant_holds_it(played):
    toy, states, _ = played
    server = toy.algorithm.server
    count = jnp.zeros((2, 4)).at[0, 1].set(3.0)
    uploads = prototypes.ClassMeans(jnp.ones((2, 4, 8)), count)
    cohort = Cohort(jnp.array([3.0, 2.0]), jnp.int32(2), jax.random.key(0))
    got = server.update(states[1].server, uploads, cohort)
    np.testing.assert_array_equal(got.known, [False, True, False, False])
    assert (got.vector == jnp.where(got.known[:, None], 1.0, 0.0)).all()


def test_a_model_of_another_width_or_task_is_refused():
    toy = Toy("fedproto")
    with pytest.raises(ValueError, match=r"feature_dim 8; odd has 5.*--feature-dim"):
        toy.algorithm.client(toy.small("odd", 6, 5))
    two = toy.small("two", 6)._replace(num_classes=2)
    with pytest.raises(ValueError, match=r"the 4 classes .*; two has 2.*one task"):
        toy.algorithm.client(two)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"weight must be at least 0; got -2\.0"):
        Toy("fedproto", weight=-2.0)
