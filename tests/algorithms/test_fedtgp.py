"""FedTGP against the equations in NumPy, and the laws of its server."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms, tree
from fedjax_mrl.algorithms import fedtgp
from fedjax_mrl.data import images
from fedjax_mrl.learning import optimizers, pairs, prototypes, trainable_prototypes
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import (
    Batches,
    Cohort,
    Examples,
    Model,
    Network,
    Setup,
    Visit,
)
from tests.helpers import Toy, assert_trees_close, assert_trees_equal

CLASSES, WIDTH, PIXELS = 4, 5, 6


# The equations, for real and complex numbers.


def relu(z):
    return np.where(z.real > 0, z, 0)


def cross_entropy(logits, labels):
    top = logits.real.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return (log_sum - logits[np.arange(len(labels)), labels]).mean()


def contrast(p, x, y, margin):
    centres = relu(p["embedding"] @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    distance = np.sqrt(((x[:, None] - centres[None]) ** 2).sum(axis=-1))
    return cross_entropy(-(distance + margin * np.eye(CLASSES)[y]), y)


def client_loss(p, x, y, vector, known, weight):
    features = relu(x @ p["extractor"])
    pull = np.where(known[y][:, None], (features - vector[y]) ** 2, 0).mean()
    ce = cross_entropy(features @ p["w"] + p["b"], y)
    return ce + weight * pull, ce, pull


def gradient(function, params):
    """By complex steps: exact to the last digits, and no rule of differentiation."""
    result = {}
    for name, value in params.items():
        result[name] = np.zeros(value.shape)
        for place in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[place] += 1e-30j
            result[name][place] = function({**params, name: moved}).imag / 1e-30
    return result


# The same in our code.


def linear_model(width=WIDTH):
    def features(extractor, x):
        return jax.nn.relu(x.reshape(x.shape[0], -1) @ extractor)

    return Model("linear", lambda key: None, features, layers.linear, width, CLASSES)


def build(**options):
    setup = Setup(
        shared=linear_model,
        feature_dim=WIDTH,
        num_classes=CLASSES,
        optimizer=optimizers.sgd(0.1, momentum=0.0, weight_decay=0.0, clip_norm=0.0),
        prepare=images.prepare((0.0,), (1.0,), "raw"),
    )
    return algorithms.build("fedtgp", setup, **options)


def server_case(seed=0):
    """A server state, and uploads of five participants; the fourth has no weight."""
    draw = np.random.default_rng(seed)
    params = {
        "embedding": draw.normal(size=(CLASSES, WIDTH)),
        "w1": draw.normal(size=(WIDTH, WIDTH)),
        "b1": draw.normal(size=WIDTH),
        "w2": draw.normal(size=(WIDTH, WIDTH)),
        "b2": draw.normal(size=WIDTH),
    }
    count = np.array(
        [[3, 1, 0, 0], [0, 5, 2, 0], [4, 0, 0, 0], [0, 0, 0, 9], [1, 1, 1, 0]]
    )
    mean = draw.normal(size=(5, CLASSES, WIDTH)) * (count[..., None] > 0)
    return params, mean, count, np.array([4, 7, 4, 0, 3])


def to_state(params, known):
    p = {name: jnp.asarray(value) for name, value in params.items()}
    return fedtgp.ServerState(
        trainable_prototypes.Trainable(
            p["embedding"],
            {"kernel": p["w1"], "bias": p["b1"]},
            {"kernel": p["w2"], "bias": p["b2"]},
        ),
        jnp.asarray(known),
    )


def to_uploads(mean, count, dtype=jnp.float64):
    return prototypes.ClassMeans(jnp.asarray(mean, dtype), jnp.asarray(count, dtype))


def to_cohort(weights, round=1):
    key = jax.random.key(round)
    return Cohort(jnp.asarray(weights, jnp.float32), jnp.int32(round), key)


def oracle_round(params, mean, count, weights, order, max_margin):
    """One server step from the equations, given the minibatches."""
    holds = (count > 0) & (weights > 0)[:, None]
    merged = [mean[holds[:, c], c].mean(axis=0) for c in range(3)]  # nobody has 3
    gaps = [
        min(np.linalg.norm(merged[i] - merged[j]) for j in range(3) if j != i)
        for i in range(3)
    ]
    margin = min(max(gaps), max_margin)
    for batch in order:
        who, label = np.divmod(batch[batch >= 0], CLASSES)
        x = mean[who, label]
        step = gradient(lambda p, x=x, y=label: contrast(p, x, y, margin), params)
        params = {name: params[name] - 0.2 * step[name] for name in params}
    return params


@pytest.mark.parametrize("max_margin", [100.0, 0.25])
def test_two_server_steps_equal_the_equations(max_margin, x64):
    settings = {"server_lr": 0.2, "server_epochs": 2, "server_batch_size": 3}
    server = build(max_margin=max_margin, **settings).server
    params, mean, count, weights = server_case()
    state, uploads = to_state(params, np.zeros(CLASSES, bool)), to_uploads(mean, count)
    update = jax.jit(server.update)
    for round in (1, 2):
        cohort = to_cohort(weights, round)
        examples = pairs.of_uploads(uploads, cohort)
        order = pairs.shuffled(jax.random.clone(cohort.key), examples, 2, 3)
        # Eight prototypes count, so an epoch is three steps, the last one of two.
        assert int(order.steps) == 6
        batches = np.asarray(order.index)[:6]
        params = oracle_round(params, mean, count, weights, batches, max_margin)
        state = update(state, uploads, cohort)
        expected = to_state(params, np.array([True, True, True, False]))
        assert_trees_close(state, expected, atol=1e-12)
    broadcast = server.broadcast(state)
    centres = relu(params["embedding"] @ params["w1"] + params["b1"])
    centres = centres @ params["w2"] + params["b2"]
    np.testing.assert_allclose(broadcast.vector[:3], centres[:3], atol=1e-12)
    assert (broadcast.vector[3] == 0).all() and not broadcast.known[3]


def test_a_client_step_equals_the_equations(x64):
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(7, PIXELS)), np.array([0, 1, 2, 3, 3, 1, 0])
    params = {
        "extractor": draw.normal(size=(PIXELS, WIDTH)),
        "w": draw.normal(size=(WIDTH, CLASSES)),
        "b": draw.normal(size=CLASSES),
    }
    vector = draw.normal(size=(CLASSES, WIDTH))
    known = np.array([True, True, False, True])
    client = build(weight=10.0).client(linear_model())
    header = {"kernel": jnp.asarray(params["w"]), "bias": jnp.asarray(params["b"])}
    state = client.init(jax.random.key(0))._replace(
        private=Network(jnp.asarray(params["extractor"]), header)
    )
    # The batch has one place more than there are examples.
    rows = Batches(jnp.array([[0, 1, 2, 3, 4, 5, 6, -1]]), jnp.int32(1))
    data = Examples(jnp.asarray(x.reshape(7, 2, 3, 1)), jnp.asarray(y, jnp.int32))
    out = client.update(
        prototypes.Prototypes(jnp.asarray(vector), jnp.asarray(known)),
        state,
        Visit(data, rows, rows, rows, jnp.int32(1)),
        jax.random.key(0),
    )
    values = client_loss(params, x, y, vector, known, 10.0)
    for name, value in zip(("total", "ce", "prototype"), values, strict=True):
        np.testing.assert_allclose(out.metrics[name], [value], atol=1e-12)
    step = gradient(
        lambda p: client_loss(p, x, y, vector, known, 10.0)[0],
        params,
    )
    new = {name: params[name] - 0.1 * step[name] for name in params}
    trained = out.state.private
    np.testing.assert_allclose(trained.extractor, new["extractor"], atol=1e-12)
    np.testing.assert_allclose(trained.header["kernel"], new["w"], atol=1e-12)
    np.testing.assert_allclose(trained.header["bias"], new["b"], atol=1e-12)
    # What is uploaded comes from the new weights.
    features = relu(x @ new["extractor"])
    means = [features[y == c].mean(axis=0) for c in range(CLASSES)]
    np.testing.assert_allclose(out.upload.mean, means, atol=1e-12)
    np.testing.assert_array_equal(out.upload.count, [2, 2, 1, 2])


def test_the_margin_is_the_largest_gap_between_neighbours():
    # On a line at 0, 1 and 4: the gaps to the nearest are 1, 1 and 3.
    vector = jnp.array([[0.0], [1.0], [4.0], [2.0]])
    known = jnp.array([True, True, True, False])
    margin = lambda *given: float(fedtgp.adaptive_margin(*given))
    assert margin(prototypes.Prototypes(vector, known), 100.0) == 3
    assert margin(prototypes.Prototypes(vector, known), 2.0) == 2
    alone = jnp.array([False, True, False, False])
    assert margin(prototypes.Prototypes(vector, alone), 100.0) == 100


def test_the_contrast_has_a_gradient_at_distance_zero():
    params = server_case()[0]
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), to_state(params, np.ones(4, bool))
    ).trainable
    x = trainable_prototypes.vectors(single)[:1]
    gradient = jax.grad(fedtgp.contrast)(
        single, x, jnp.array([0]), jnp.array([True]), jnp.float32(1)
    )
    assert np.isfinite(tree.squared_norm(gradient))


@pytest.fixture(scope="module")
def played():
    """States before, between and after two rounds, and what they reported."""
    with jax.numpy_dtype_promotion("strict"):
        toy = Toy("fedtgp", same=True, server_epochs=5)
        states, reports = [toy.init()], []
        play = toy.make()
        for _ in (1, 2):
            state, report = play(jax.tree.map(jnp.copy, states[-1]))
            states.append(state)
            reports.append(report)
        return toy, states, reports


@pytest.mark.slow
def test_every_part_of_the_prototypes_is_trained_and_kept(played):
    _, states, _ = played
    for before, after in itertools.pairwise(states):
        for part in trainable_prototypes.Trainable._fields:
            old, new = (getattr(s.server.trainable, part) for s in (before, after))
            gap = tree.squared_norm(jax.tree.map(jnp.subtract, old, new))
            assert float(gap) > 0, part


def test_the_pull_is_zero_at_first_and_positive_afterwards(played):
    _, _, reports = played
    assert (reports[0].metrics["prototype"] == 0).all()
    assert (reports[1].metrics["prototype"] > 0).all()
    total = reports[1].metrics["ce"] + 10.0 * reports[1].metrics["prototype"]
    np.testing.assert_allclose(reports[1].metrics["total"], total, rtol=1e-5)


def test_the_toy_is_evaluated_without_nan(played):
    toy, states, _ = played
    for state in states:
        scores = toy.evaluate()(state)
        assert np.isfinite(scores.loss_sum).all()
        # Before the first round no class is known, and so there is no loss.
        known = scores.num_loss[:, 0].any()
        assert known == (state.round > 0)


@pytest.mark.slow
def test_without_weight_it_is_standalone_training():
    pulled, alone = (
        toy.client_states(toy.after(2))
        for toy in (
            Toy("fedtgp", same=True, weight=0.0, server_epochs=1),
            Toy("standalone", same=True),
        )
    )
    for client, state in alone.items():
        assert_trees_close(pulled[client].private, state.private, atol=1e-6)


def test_participants_without_weight_do_not_exist(x64):
    server = build(server_epochs=2).server
    params, mean, count, weights = server_case()
    start = to_state(params, np.zeros(CLASSES, bool))
    got = server.update(start, to_uploads(mean, count), to_cohort(weights))
    mean[3] = np.nan
    broken = server.update(start, to_uploads(mean, count), to_cohort(weights))
    assert_trees_equal(broken, got)


def test_a_class_stays_known(x64):
    server = build(server_epochs=1).server
    params, mean, count, weights = server_case()
    start = to_state(params, np.array([False, False, False, True]))
    got = server.update(start, to_uploads(mean, count), to_cohort(weights))
    assert got.known.all()


def test_a_model_of_another_width_or_task_is_refused():
    with pytest.raises(ValueError, match=r"feature_dim 5; linear has 3.*--feature-dim"):
        build().client(linear_model(3))
    two = linear_model()._replace(num_classes=2)
    with pytest.raises(ValueError, match=r"the 4 classes .*; linear has 2.*one task"):
        build().client(two)


@pytest.mark.parametrize(
    "option",
    [
        {"weight": -1.0},
        {"max_margin": -1.0},
        {"server_lr": -0.1},
        {"server_epochs": 0},
        {"server_batch_size": 0},
    ],
)
def test_values_out_of_range_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"{name} must be at least \d; got {value}"):
        build(**option)
