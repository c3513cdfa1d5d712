"""Asking trained clients about images: any store, head, point and form of image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl import sharding, stores
from fedjax_mrl.data.dataset import DatasetError
from fedjax_mrl.simulation import initialization, population, prediction, rounds
from fedjax_mrl.simulation.evaluation import POINTS
from fedjax_mrl.simulation.state import ConsumedError
from tests import helpers


@functools.cache
def data():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (60, 4, 5)).astype(np.uint8)
    return fm.arrays(x, np.arange(60) % 3, x[:40], np.arange(40) % 3, mean=0.4, std=0.3)


@functools.cache
def federation(store, folder=None):
    made = fm.Federation(
        algorithm="fml",
        dataset=data(),
        models=("mlp",),
        shared_model="mlp",
        feature_dim=6,
        num_clients=4,
        partition="iid",
        rounds=1,
        client_store=store,
        client_folder=folder,
    )
    list(made.rounds())
    return made


@pytest.mark.parametrize("store", ["device", "host", "disk"])
def test_predictions_are_what_evaluation_counts(store, tmp_path_factory):
    found = federation(store, tmp_path_factory.getbasetemp() / "clients")
    scores = found.evaluate()
    x, y = found.dataset.x_test, found.dataset.y_test
    for p, point in enumerate(POINTS):
        for h, head in enumerate(found.algorithm.heads):
            logits = found.predict(x, head=head, point=point)
            assert logits.shape == (4, 40, 3)
            for client, part in enumerate(found.partition.test):
                right = logits[client, part].argmax(-1) == y[part]
                assert right.sum() == scores.correct[p, h, client]
                one = found.predict(x, client, head=head, point=point)
                np.testing.assert_array_equal(one, logits[client])
    first = found.algorithm.heads[0]
    np.testing.assert_array_equal(found.predict(x), found.predict(x, head=first))


def test_one_image_lists_and_grey_images_are_taken():
    found, x = federation("host"), data().x_test
    expected = found.predict(x[:3], client=np.int64(2))
    assert expected.shape == (3, 3) and expected.dtype == np.float32
    for some in (x[:3, ..., 0], x[:3].tolist(), jnp.asarray(x[:3]), x[:3].astype(int)):
        np.testing.assert_array_equal(found.predict(some, client=2), expected)
    for one in (x[0], x[0, ..., 0], x[0].tolist()):
        np.testing.assert_allclose(found.predict(one, client=2), expected[0], atol=1e-6)
    assert found.predict(x[0]).shape == (4, 3)
    many = found.predict(np.concatenate([x] * 5), client=2)  # more than one block
    np.testing.assert_allclose(many[160:163], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (lambda x: x / 255, {}, r"x must be uint8.*float64.*np\.round\(255 \* x\)"),
        (lambda x: x[:, :3], {}, r"x must be images \[4, 5, 1\].*is \[40, 3, 5, 1\]"),
        (lambda x: np.repeat(x, 3, -1), {}, r"x must be images \[4, 5, 1\]"),
        (lambda x: x[0, 0], {}, r"one or several \[B, 4, 5, 1\], but is \[5, 1\]"),
        (lambda x: x.reshape(40, -1), {}, r"several \[B, 4, 5, 1\], but is \[40, 20\]"),
        (lambda x: x[:0], {}, "at least one image"),
        (lambda x: x, {"client": 4}, "from 0 to 3, or None for all; got 4"),
        (lambda x: x, {"client": -1}, "got -1"),
        (lambda x: x, {"client": True}, "got True"),
        (lambda x: x, {"client": "3"}, "got '3'"),
        (lambda x: x, {"head": "perso"}, "no head 'perso'. Did you mean 'personal'"),
        (lambda x: x, {"point": "globl"}, "no point 'globl'. Did you mean 'global'"),
    ],
)
def test_what_cannot_be_asked_is_told(x, options, words):
    with pytest.raises(ValueError, match=words):
        federation("host").predict(x(data().x_test), **options)


def test_a_state_is_needed_and_not_a_consumed_one():
    found = federation("host").with_trial(seed=1)
    with pytest.raises(ValueError, match="no state yet"):
        found.predict(data().x_test)
    state = found.init()
    before = found.predict(data().x_test, 1, state=state)
    after, _ = found.play(state)
    assert not np.array_equal(found.predict(data().x_test, 1, state=after), before)
    with pytest.raises(ConsumedError, match="after round 0 is gone"):
        found.predict(data().x_test, state=state)


def test_images_that_are_prepared_already_are_asked_as_they_are():
    x = np.random.default_rng(0).normal(size=(30, 4, 4, 1)).astype(np.float32)
    y = np.arange(30) % 3
    made = fm.Federation(
        dataset=fm.arrays(x, y, x, y, augmentation="raw"),
        algorithm="standalone",
        models=("mlp",),
        shared_model="mlp",
        feature_dim=4,
        num_clients=2,
        partition="iid",
    )
    state = made.init()
    found = made.predict(x[:2].astype(np.float64), client=1, state=state)
    assert found.shape == (2, 3) and np.isfinite(found).all()
    with pytest.raises(DatasetError, match="must be float32 to be used as it is"):
        made.predict((x[:2] * 9).astype(np.uint8), client=1, state=state)


@pytest.mark.slow
def test_clients_with_tasks_of_their_own_have_their_classes():
    toy = helpers.Toy("fml", share="extractor")
    small = helpers.mlp.mlp(toy.shape, 2, hidden=4, feature_dim=toy.width)
    halves = np.array([0, 0, 1, 1], np.int32)
    toy.groups = [
        population.Group("all", toy.models[0], np.arange(0, 8, 2, dtype=np.int32)),
        population.Group("half", small, np.arange(1, 8, 2, dtype=np.int32), halves),
    ]
    mesh = sharding.mesh(1)
    store = stores.make("device", mesh)
    ask = prediction.make(toy.algorithm, toy.groups, toy.setup.prepare.test, store)
    state = initialization.init(toy.algorithm, toy.groups, toy.config)
    state, _ = rounds.make(
        toy.algorithm, toy.groups, toy.examples, toy.train, toy.config
    )(state)
    x = np.asarray(toy.examples.x[:5])
    assert ask(state, x, 0).shape == (5, 4) and ask(state, x, 1).shape == (5, 2)
    with pytest.raises(ValueError, match=r"tasks of \[2, 4\] classes; ask each"):
        ask(state, x)
    assert jax.tree.leaves(state.server)  # still whole
