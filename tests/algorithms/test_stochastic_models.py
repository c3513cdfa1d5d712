"""Models with random parts, such as dropout: only what trains takes them so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.protocol import Batches, Cohort, Visit
from tests import helpers
from tests.helpers import assert_trees_equal

STEPS = 2
# How often a step of training takes a model; else it is once. FedGen's header is also
# trained on generated representations.
TIMES = {"fedapen": 2, "fedgen": 2, "fedkd": 2, "fedmrl": 2, "fml": 2}
TIMES |= {name: 2 for name in algorithms.names() if helpers.ablates(name)}
VARIANTS = {
    "fedmrl full": {"readout": "full"},
    "fedmrl local": {"readout": "local"},
    "fml extractor": {"share": "extractor"},
    "fedkd detach": {"detach": True},
}
every_algorithm = pytest.mark.parametrize("name", [*helpers.names(), *VARIANTS])


def random(model, scale, record):
    """The model with representations and logits times random numbers in training."""

    def stochastic(key):
        record(key)
        a, b = 1 + scale * jax.random.uniform(jax.random.fold_in(key, 0), (2,))
        return model._replace(
            features=lambda params, x: a * model.features(params, x),
            head=lambda params, x: b * model.head(params, x),
        )

    return model._replace(stochastic=stochastic)


@functools.cache
def toy_of(case):
    return helpers.toy(case.split()[0])


def build(case, scale, record):
    """The method on random models, and the client of the first architecture."""
    name, toy, options = case.split()[0], toy_of(case), VARIANTS.get(case, {})
    shared = lambda width: random(toy.setup.shared(width), scale, record)
    options = {"shared_dim": 3, **options} if name.startswith("fedmrl") else options
    method = algorithms.build(name, toy.setup._replace(shared=shared), **options)
    return method, method.client(random(toy.models[0], scale, record))


def visit(name):
    toy = toy_of(name)
    index = np.full((STEPS, 4), -1, np.int32)
    index.ravel()[:5] = toy.train[0]
    table = Batches(jnp.asarray(index), jnp.int32(STEPS))
    return Visit(toy.examples, table, table, table, jnp.int32(2))


@functools.cache
def start(name):
    """A first broadcast, and the private state of a client."""
    method, client = build(name, 0.0, lambda key: None)
    broadcast = method.server.broadcast(method.server.init(jax.random.key(0)))
    return broadcast, client.init(jax.random.key(1))


@functools.cache
def visited(name):
    """Visits by scale and number of the key, and the models' keys of the last one."""
    seen, (broadcast, state) = [], start(name)
    record = lambda key: jax.debug.callback(
        lambda data: seen.append(tuple(data.tolist())), jax.random.key_data(key)
    )

    @jax.jit
    def update(scale, number):
        _, client = build(name, scale, record)
        key = jax.random.fold_in(jax.random.key(2), number)
        out = client.update(broadcast, state, visit(name), key)
        return {"state": out.state, "shared": out.shared}, out.upload

    results = []
    for scale, number in ((0.0, 0), (0.0, 1), (1.0, 0), (1.0, 1)):
        seen.clear()
        results.append(jax.device_get(update(scale, number)))
        jax.effects_barrier()
    return results, list(seen)


def different(a, b):
    return [(x != y).any() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]


@pytest.mark.slow
@every_algorithm
def test_random_parts_change_all_that_is_trained_by_the_key(name):
    (fixed, again, one, other), _ = visited(name)
    # Without the random parts the key changes nothing: no images are augmented here.
    assert_trees_equal(fixed, again)
    broadcast, state = start(name)
    trained = different(fixed[0], {"state": state, "shared": broadcast})
    assert any(trained)
    for result in (one, other):
        for was_trained, differs in zip(
            trained, different(fixed[0], result[0]), strict=True
        ):
            assert differs == was_trained
    for was_trained, differs in zip(trained, different(one[0], other[0]), strict=True):
        assert differs == was_trained


@every_algorithm
def test_each_network_of_each_step_has_a_key_of_its_own_and_other_passes_none(name):
    _, keys = visited(name)
    assert len(keys) == STEPS * TIMES.get(name.split()[0], 1)
    assert len(set(keys)) == len(keys)


@every_algorithm
def test_predictions_and_what_follows_a_visit_take_models_as_they_are(name):
    def fail(key):
        raise AssertionError("not training")

    _, client = build(name, 1.0, fail)
    broadcast, state = start(name)
    x = jnp.zeros((3, *helpers.Toy.shape), jnp.float32)
    found = client.predict(broadcast, state, x)
    _, plain = build(name, 0.0, fail)
    assert_trees_equal(found, plain.predict(broadcast, state, x))
    if client.finish is not None:
        client.finish(broadcast, state, visit(name), jax.random.key(0))


def test_the_servers_training_of_a_header_draws_anew_in_each_step():
    seen = []
    record = lambda key: jax.debug.callback(
        lambda data: seen.append(tuple(data.tolist())), jax.random.key_data(key)
    )
    method, client = build("fedgh", 1.0, record)
    broadcast, state = start("fedgh")
    upload = client.update(broadcast, state, visit("fedgh"), jax.random.key(0)).upload
    jax.effects_barrier()
    seen.clear()
    uploads = jax.tree.map(lambda leaf: leaf[None], upload)
    cohort = Cohort(jnp.ones(1), jnp.int32(1), jax.random.key(3))
    method.server.update(broadcast, uploads, cohort)
    jax.effects_barrier()
    # Two epochs over the client's few pairs, a minibatch each.
    assert len(seen) == len(set(seen)) == 2
