"""Local training, optimizer and losses against loops and closed forms in NumPy."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from fedjax_mrl.data import images
from fedjax_mrl.learning import local, losses, optimizers
from fedjax_mrl.protocol import Batch, Batches, Examples, Setup, Visit
from fedjax_mrl.simulation import batches

INPUTS, CLASSES = 3, 4


class Networks(NamedTuple):
    """Two linear classifiers of the same inputs."""

    small: Any
    large: Any


def networks(dtype=jnp.float64):
    draw = np.random.default_rng(3)
    make = lambda scale: {
        "kernel": jnp.asarray(scale * draw.normal(size=(INPUTS, CLASSES)), dtype),
        "bias": jnp.asarray(scale * draw.normal(size=CLASSES), dtype),
    }
    return Networks(make(1.0), make(0.1))


def loss(networks, batch, key):
    """Two cross-entropies; the second has a hundred times the gradient."""
    x = batch.x.reshape(batch.x.shape[0], -1)
    small, large = (
        losses.cross_entropy(x @ n["kernel"] + n["bias"][None], batch.y, batch.mask)
        for n in networks
    )
    seen = jnp.where(batch.mask[:, None], x, jnp.zeros((), x.dtype)).sum(axis=0)
    metrics = {"small": small, "large": large, "chance": jax.random.uniform(key)}
    return losses.Terms(small + 100 * large, metrics, {"seen": seen})


def examples(n=9):
    draw = np.random.default_rng(4)
    x, y = draw.normal(size=(n, 1, 1, INPUTS)), draw.integers(0, CLASSES, n)
    return x, y


def setup(**sgd):
    return Setup(
        shared=None,
        feature_dim=0,
        num_classes=CLASSES,
        optimizer=optimizers.sgd(**sgd),
        prepare=images.prepare((0.0,), (1.0,), "raw"),
    )


def visit(x, y, index, steps=None):
    index = np.asarray(index, np.int32)
    table = Batches(
        jnp.asarray(index), jnp.int32(len(index) if steps is None else steps)
    )
    stored = Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32))
    return Visit(stored, table, table, table, jnp.int32(1))


@functools.cache
def trainer(*sgd):
    settings = setup(**dict(sgd))
    return jax.jit(
        lambda networks, visit, key: local.train(loss, networks, settings, visit, key)
    )


def train(networks, visit, key=None, **sgd):
    key = jax.random.key(0) if key is None else key
    return trainer(*sorted(sgd.items()))(networks, visit, key)


def numpy_step(params, gradients, momenta, *, learning_rate, momentum, decay, clip):
    """PyTorch's order for one network, in place: clip, decay, momentum, step."""
    scale = 1.0
    if clip:
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        scale = min(1.0, clip / (norm + 1e-6))
    for name, g in gradients.items():
        momenta[name] = momentum * momenta[name] + g * scale + decay * params[name]
        params[name] = params[name] - learning_rate * momenta[name]
    return scale


def numpy_gradient(params, x, y):
    """Of the mean cross-entropy, and its value."""
    p = special.softmax(x @ params["kernel"] + params["bias"], axis=1)
    dz = (p - np.eye(CLASSES)[y]) / len(y)
    value = -np.log(p[np.arange(len(y)), y]).mean()
    return value, {"kernel": x.T @ dz, "bias": dz.sum(0)}


def as_numpy(network):
    return {name: np.array(leaf) for name, leaf in network.items()}


INDEX = [[3, 1, 4], [5, 2, 6], [7, 8, -1], [8, 1, 7], [3, 6, 2], [5, -1, -1]]


@pytest.mark.parametrize(
    ("momentum", "decay", "clip"), [(0.9, 0.01, 0.5), (0.5, 0.0, 0.0), (0.0, 0.1, 50.0)]
)
def test_training_is_the_loop_one_would_write(momentum, decay, clip, x64):
    x, y = examples()
    start = networks()
    sgd = {"momentum": momentum, "weight_decay": decay, "clip_norm": clip}
    out = train(start, visit(x, y, INDEX), learning_rate=0.1, **sgd)
    found = [as_numpy(network) for network in start]
    momenta = [{name: 0.0 for name in network} for network in found]
    scales, seen = [], np.zeros(INPUTS)
    for step, row in enumerate(np.array(INDEX)):
        rows = row[row >= 0]  # the last minibatch of an epoch is smaller
        inputs = x[rows].reshape(len(rows), -1)
        seen += inputs.sum(0)
        for params, momentum_of, factor, name in zip(
            found, momenta, (1, 100), Networks._fields, strict=True
        ):
            value, gradient = numpy_gradient(params, inputs, y[rows])
            np.testing.assert_allclose(out.metrics[name][step], value, rtol=1e-10)
            gradient = {key: factor * g for key, g in gradient.items()}
            scales.append(
                numpy_step(
                    params,
                    gradient,
                    momentum_of,
                    learning_rate=0.1,
                    momentum=momentum,
                    decay=decay,
                    clip=clip,
                )
            )
    if clip == 0.5:  # the large network was clipped, the small one was not always
        assert max(scales[1::2]) < 0.1 and max(scales[0::2]) == 1
    assert isinstance(out.networks, Networks)
    for network, expected in zip(out.networks, found, strict=True):
        for name in expected:
            np.testing.assert_allclose(network[name], expected[name], atol=1e-12)
    np.testing.assert_allclose(out.sums["seen"], seen, atol=1e-12)


def step_of(optimizer, gradient, params, state=None):
    state = optimizer.init(params) if state is None else state
    return optimizer.update(gradient, state, params)


def test_clipping_divides_by_the_norm_plus_a_millionth(x64):
    optimizer = optimizers.sgd(1.0, momentum=0.0, weight_decay=0.0, clip_norm=1.0)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    for norm, scale in ((1.0, 1 / (1 + 1e-6)), (10.0, 1 / (10 + 1e-6)), (0.5, 1.0)):
        # 0.6 and 0.8 make a norm of 1: the norm is that of the whole network.
        gradient = {"a": jnp.array([0.6 * norm]), "b": jnp.array([-0.8 * norm])}
        updates, _ = step_of(optimizer, gradient, params)
        np.testing.assert_allclose(updates["a"], [-0.6 * norm * scale], rtol=1e-14)
        np.testing.assert_allclose(updates["b"], [0.8 * norm * scale], rtol=1e-14)


def test_weight_decay_comes_after_clipping_and_covers_biases(x64):
    optimizer = optimizers.sgd(2.0, momentum=0.0, weight_decay=0.5, clip_norm=1e-3)
    params = {"bias": jnp.array([4.0]), "kernel": jnp.array([[-3.0]])}
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = step_of(optimizer, gradient, params)
    # Unclipped: minus rate times decay times the parameter.
    np.testing.assert_array_equal(updates["bias"], [-4.0])
    np.testing.assert_array_equal(updates["kernel"], [[3.0]])


def test_momentum_accumulates_without_dampening_or_look_ahead(x64):
    optimizer = optimizers.sgd(1.0, momentum=0.5, weight_decay=0.0, clip_norm=0.0)
    params, state, found = jnp.zeros(1), None, []
    for _ in range(4):
        updates, state = step_of(optimizer, jnp.ones(1), params, state)
        found.append(-float(updates[0]))
    assert found == [1.0, 1.5, 1.75, 1.875]  # 1, 1 + 1/2, 1 + 1/2 + 1/4, ...


def test_no_clipping_no_decay_and_no_momentum_is_gradient_descent(x64):
    plain = optimizers.sgd(0.25, momentum=0.0, weight_decay=0.0, clip_norm=0.0)
    updates, _ = step_of(plain, jnp.array([1e6]), jnp.array([3.0]))
    np.testing.assert_array_equal(updates, [-0.25e6])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -0.1),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-3),
        ("clip_norm", -1.0),
        ("learning_rate", float("nan")),
    ],
)
def test_an_optimizer_setting_out_of_range_is_refused(name, value):
    limit = " and below 1" * (name == "momentum")
    with pytest.raises(ValueError, match=f"{name} must be at least 0{limit}; got"):
        optimizers.sgd(**{"learning_rate": 0.1, name: value})


SGD = {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.0, "clip_norm": 0.0}


def test_places_without_an_example_have_no_influence(x64):
    # Nothing trains on example 0, but -1 has to read something.
    x, y = examples()
    before = train(networks(), visit(x, y, INDEX), **SGD)
    x[0], y[0] = 1e3, (y[0] + 1) % CLASSES
    after = train(networks(), visit(x, y, INDEX), **SGD)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_steps_leave_the_networks_and_report_zeros(x64):
    x, y = examples()
    start = networks()
    out = train(start, visit(x, y, INDEX, steps=0), **SGD)
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(out.networks), strict=True):
        np.testing.assert_array_equal(a, b)
    for value in jax.tree.leaves((out.metrics, out.sums)):
        assert not value.any()


def test_only_the_steps_that_exist_are_taken(x64):
    x, y = examples()
    short = train(networks(), visit(x, y, INDEX[:2] + [[-1] * 3] * 4, steps=2), **SGD)
    long = train(networks(), visit(x, y, INDEX, steps=2), **SGD)
    for a, b in zip(jax.tree.leaves(short), jax.tree.leaves(long), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (long.metrics["large"][:2] > 0).all()
    assert not long.metrics["large"][2:].any()


def test_every_step_and_visit_has_randomness_of_its_own(x64):
    x, y = examples()
    given = visit(x, y, INDEX)
    draws = [
        train(networks(), given, jax.random.key(k), **SGD).metrics["chance"]
        for k in (0, 1, 0)
    ]
    assert len({float(u) for u in np.concatenate(draws[:2])}) == 12
    np.testing.assert_array_equal(draws[0], draws[2])


def test_plain_tuples_of_networks_come_back_as_tuples(x64):
    x, y = examples()
    out = jax.eval_shape(
        lambda start: (
            local.train(
                lambda both, batch, key: loss(Networks(*both), batch, key),
                start,
                setup(**SGD),
                visit(x, y, INDEX),
                jax.random.key(0),
            ).networks
        ),
        tuple(networks()),
    )
    assert type(out) is tuple and len(out) == 2


def test_a_sweep_sees_every_example_once_and_nothing_else():
    x = np.arange(9, dtype=np.float32).reshape(9, 1, 1, 1)
    y = np.arange(9) % CLASSES
    parts = [np.array([8, 2, 5, 1, 7]), np.array([3]), np.array([], np.int32)]
    table = batches.in_order(parts, 2)
    stored = Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32))
    numbers = jnp.arange(9, dtype=jnp.float32)

    @jax.jit
    def count(index, steps):
        own = Batches(index, steps)
        given = Visit(stored, own, own, own, jnp.int32(1))

        def seen(batch):
            own = (batch.x.reshape(-1, 1) == numbers[None]) & batch.mask[:, None]
            return {"examples": own.sum(0), "labels": jnp.where(batch.mask, batch.y, 0)}

        return local.sweep(seen, given.sweep, setup(**SGD), given)

    for client, part in enumerate(parts):
        found = count(jnp.asarray(table.index[client]), jnp.int32(table.steps[client]))
        expected = np.bincount(part, minlength=9)
        np.testing.assert_array_equal(found["examples"], expected)
        assert found["labels"].sum() == y[part].sum()


def test_class_sums_add_up_what_exists_class_by_class():
    values = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    y, mask = np.array([0, 2, 2, 0, 3, 2]), np.array([1, 1, 1, 1, 0, 1], bool)
    batch = Batch(jnp.zeros(6), jnp.asarray(y, jnp.int32), jnp.asarray(mask))
    sums, counts = local.class_sums(jnp.asarray(values), batch, CLASSES)
    np.testing.assert_array_equal(counts, [2, 0, 3, 0])
    for label in range(CLASSES):
        expected = values[mask & (y == label)].sum(0)
        np.testing.assert_allclose(sums[label], expected, atol=1e-6)


def logits(seed, n=5):
    return 3 * np.random.default_rng(seed).normal(size=(n, CLASSES))


MASK = np.array([True, True, False, True, False])
LABELS = np.array([0, 3, 1, 3, 2])


def test_cross_entropy_is_the_mean_of_minus_the_log_probability(x64):
    z = logits(0)
    p = special.softmax(z, axis=1)
    each = -np.log(p[np.arange(5), LABELS])
    labels = jnp.asarray(LABELS, jnp.int32)
    found = losses.cross_entropy_per_example(jnp.asarray(z), labels)
    np.testing.assert_allclose(found, each, rtol=1e-12)
    mean = losses.cross_entropy(jnp.asarray(z), labels, jnp.asarray(MASK))
    np.testing.assert_allclose(mean, each[MASK].mean(), rtol=1e-12)
    # Equal logits: the logarithm of the number of classes.
    flat = losses.cross_entropy(jnp.zeros((5, CLASSES)), labels, jnp.asarray(MASK))
    np.testing.assert_allclose(flat, np.log(CLASSES), rtol=1e-12)


def test_cross_entropy_takes_target_probabilities(x64):
    z, target = logits(0), special.softmax(logits(1), axis=1)
    each = stats.entropy(target, axis=1) + stats.entropy(
        target, special.softmax(z, axis=1), axis=1
    )
    found = losses.cross_entropy(*map(jnp.asarray, (z, target, MASK)))
    np.testing.assert_allclose(found, each[MASK].mean(), rtol=1e-12)


def test_kl_is_the_mean_divergence_of_the_student_from_the_teacher(x64):
    teacher, student = logits(0), logits(1)
    p, q = (special.softmax(z, axis=1) for z in (teacher, student))
    each = special.rel_entr(p, q).sum(1)  # not divided by the number of classes
    arguments = [jnp.asarray(a) for a in (teacher, student, MASK)]
    np.testing.assert_allclose(losses.kl(*arguments), each[MASK].mean(), rtol=1e-12)
    assert losses.kl(arguments[0], arguments[0], arguments[2]) == 0
    # By the student's logits, q - p over the examples that exist; by the teacher's,
    # p (log p/q - KL).
    by_teacher, by_student = jax.grad(losses.kl, (0, 1))(*arguments)
    weight = MASK[:, None] / MASK.sum()
    np.testing.assert_allclose(by_student, (q - p) * weight, atol=1e-12)
    expected = p * (np.log(p / q) - each[:, None]) * weight
    np.testing.assert_allclose(by_teacher, expected, atol=1e-12)


def test_squared_error_is_the_mean_over_examples_and_coordinates(x64):
    a, b = logits(0), logits(1)
    found = losses.squared_error(*map(jnp.asarray, (a, b, MASK)))
    np.testing.assert_allclose(found, ((a - b)[MASK] ** 2).mean(), rtol=1e-12)


def test_losses_of_extreme_logits_and_of_nothing_are_finite():
    far = jnp.array([[1e4, -1e4, 0.0, 0.0]], jnp.float32)
    none, one = jnp.zeros(1, bool), jnp.ones(1, bool)
    label = jnp.ones(1, jnp.int32)
    assert losses.cross_entropy(far, label, one) == 2e4
    assert losses.kl(far, -far, one) == 2e4
    for value in (
        losses.cross_entropy(far, label, none),
        losses.kl(far, -far, none),
        losses.squared_error(far, -far, none),
        losses.mean(jnp.full(1, jnp.nan), none),
    ):
        assert value == 0
