"""FD against the oracle, and the laws of its teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.fd import Trained
from fedjax_mrl.learning import prototypes
from fedjax_mrl.protocol import Batches, Cohort, Visit
from tests import oracle
from tests.helpers import Toy, assert_trees_close, assert_trees_equal

PATHS = oracle.cases("fd")


def build(setup, options):
    return algorithms.build("fd", setup, weight=options["lam"])


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    server = prototypes.Prototypes(jnp.zeros((10, 10), dtype), jnp.zeros(10, bool))
    states = [Trained(case.network(f"init.c{k}.large")) for k in case.clients]
    for round, state in enumerate(case.play(server, states), start=1):
        for k in case.participants(round):
            out = case.update(round, k, server, states[k])
            for name in ("total", "ce", "distill"):
                difference.array(f"r{round}.c{k}.loss.{name}", out.metrics[name])
            difference.array(f"r{round}.c{k}.class_logits", out.upload.mean)
            difference.array(f"r{round}.c{k}.class_counts", out.upload.count)
            states[k] = out.state
        server = state.server
        difference.array(f"r{round}.server.class_logits", server.vector)
        difference.array(f"r{round}.server.class_mask", server.known)
        for k in case.clients:
            private, _ = case.of_client(state.clients, k)
            if k in case.participants(round):
                difference.network(f"r{round}.c{k}.large", private.private)
            logits = case.client(k).predict(server, private, case.held())
            difference.array(f"r{round}.eval.c{k}.logits", logits["local"])
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
    """States before, between and after two rounds, and what they reported."""
    with jax.numpy_dtype_promotion("strict"):
        toy = Toy("fd", same=True, weight=3.0)
        states, reports = [toy.init()], []
        play = toy.make()
        for _ in (1, 2):
            state, report = play(jax.tree.map(jnp.copy, states[-1]))
            states.append(state)
            reports.append(report)
        return toy, states, reports


def test_there_is_a_teacher_from_the_second_round_on(played):
    _, states, reports = played
    assert not states[0].server.known.any()
    assert (reports[0].metrics["distill"] == 0).all()
    assert (reports[1].metrics["distill"] > 0).all()
    total = reports[1].metrics["ce"] + 3.0 * reports[1].metrics["distill"]
    np.testing.assert_allclose(reports[1].metrics["total"], total, rtol=1e-5)


def test_the_toy_is_evaluated_without_nan(played):
    toy, states, _ = played
    assert np.isfinite(toy.evaluate()(states[-1]).loss).all()


@pytest.mark.slow
def test_without_weight_it_is_standalone_training():
    taught, alone = (
        toy.client_states(toy.after(2))
        for toy in (Toy("fd", same=True, weight=0.0), Toy("standalone", same=True))
    )
    for client, state in alone.items():
        assert_trees_close(taught[client].private, state.private, atol=1e-6)


def test_an_unknown_class_teaches_nothing(played):
    toy, states, _ = played
    one = jax.jit(toy.algorithm.client(toy.models[0]).update)
    state = toy.client_states(states[0])[0]
    visit = _visit(toy)
    silent = states[0].server
    # Whatever stands in the rows of unknown classes must not be read.
    loud = silent._replace(vector=jnp.full_like(silent.vector, 7.0).at[:, 0].set(-3.0))
    key = jax.random.key(1)
    outputs = [one(teacher, state, visit, key) for teacher in (silent, loud)]
    assert_trees_equal(outputs[0].state, outputs[1].state)
    known = loud._replace(known=jnp.ones_like(loud.known))
    moved = one(known, state, visit, key).state.private.header["bias"]
    assert (moved != outputs[0].state.private.header["bias"]).any()


def test_all_local_steps_are_averaged(played):
    toy, states, _ = played
    one = jax.jit(toy.algorithm.client(toy.models[0]).update)
    visit = _visit(toy)
    out = one(
        states[0].server, toy.client_states(states[0])[0], visit, jax.random.key(1)
    )
    labels = np.asarray(toy.examples.y)[np.asarray(visit.train.index).ravel()]
    np.testing.assert_array_equal(out.upload.count, np.bincount(labels, minlength=4))


def _visit(toy):
    rows = jnp.asarray(toy.train[1][:12].reshape(3, 4))
    batches = Batches(rows, jnp.int32(3))
    return Visit(toy.examples, batches, batches, batches, jnp.int32(1))


def uploads():
    """Three participants; class 0 is held by all, 1 by two, 2 by one, 3 by none."""
    count = np.array([[2, 9, 0, 0], [4, 0, 0, 0], [1, 5, 3, 0]], np.float32)
    mean = np.random.default_rng(3).normal(size=(3, 4, 4)).astype(np.float32)
    mean = np.where(count[..., None] > 0, mean, 0)
    return prototypes.ClassMeans(jnp.asarray(mean), jnp.asarray(count))


def cohort(*weights):
    return Cohort(jnp.asarray(weights, jnp.float32), jnp.int32(1), jax.random.key(0))


def test_the_server_averages_holders_equally():
    server, given = prototypes.merging(4, 4), uploads()
    got = server.update(server.init(jax.random.key(0)), given, cohort(11, 4, 9))
    np.testing.assert_array_equal(got.known, [True, True, True, False])
    m = np.asarray(given.mean)
    expected = [m[:, 0].mean(0), (m[0, 1] + m[2, 1]) / 2, m[2, 2], np.zeros(4)]
    np.testing.assert_allclose(got.vector, expected, atol=1e-6)


def test_participants_without_weight_do_not_exist():
    server, given = prototypes.merging(4, 4), uploads()
    start = server.init(jax.random.key(0))
    got = server.update(start, given, cohort(11, 4, 0))
    np.testing.assert_array_equal(got.known, [True, True, False, False])
    broken = given._replace(mean=given.mean.at[2].set(jnp.nan))
    assert_trees_equal(server.update(start, broken, cohort(11, 4, 0)), got)


def test_only_classes_that_are_held_travel(played):
    toy, states, reports = played
    # Four logits of 4 bytes for each class, and a byte for each of four classes.
    assert float(reports[0].bytes_down) == 4
    assert float(reports[1].bytes_down) == int(states[1].server.known.sum()) * 16 + 4
    labels = np.asarray(toy.examples.y)
    held = [np.unique(labels[toy.train[k]]).size for k in reports[0].cohort]
    np.testing.assert_array_equal(reports[0].bytes_up, np.array(held) * 16 + 4)
    assert min(held) < 4


def test_a_client_with_another_task_is_refused():
    toy = Toy("fd")
    two = toy.small("two", 6)._replace(num_classes=2)
    with pytest.raises(ValueError, match=r"the 4 classes .*; two has 2.*one task"):
        toy.algorithm.client(two)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"weight must be at least 0; got -1\.0"):
        Toy("fd", weight=-1.0)
