"""FedGen against the equations in NumPy, and the laws of its generator."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_mrl import algorithms, tree
from fedjax_mrl.data import images
from fedjax_mrl.learning import generator_server, generators, headers, optimizers
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Batches, Cohort, Examples, Model, Network, Setup, Visit
from tests.helpers import Toy, assert_trees_close, assert_trees_equal

CLASSES, WIDTH, PIXELS, NOISE, HIDDEN = 4, 5, 6, 3, 7
SMALL = {"noise_dim": NOISE, "hidden_dim": HIDDEN}


# The equations, for real and complex numbers.


def relu(z):
    return np.where(z.real > 0, z, 0)


def cross_entropy(logits, labels):
    top = logits.real.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return (log_sum - logits[np.arange(len(labels)), labels]).mean()


def generate(p, label, noise):
    given = np.concatenate([noise, np.eye(CLASSES)[label]], axis=1)
    return relu(given @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def generator_loss(p, kernels, biases, counts, label, noise, diversity_weight):
    features = generate(p, label, noise)
    ensemble = np.zeros((len(label), CLASSES), complex)
    for i, y in enumerate(label):
        for k in range(len(kernels)):
            logits = features[i] @ kernels[k] + biases[k]
            ensemble[i] += counts[k, y] / counts[:, y].sum() * logits
    product = np.zeros((len(label), len(label)), complex)
    for i, j in itertools.product(range(len(label)), repeat=2):
        gap = features[i] - features[j]
        distance = (gap * np.sign(gap.real)).mean()  # |gap|, and analytic
        product[i, j] = ((noise[i] - noise[j]) ** 2).mean() * distance
    diversity = np.exp(-product.mean())
    return cross_entropy(ensemble, label) + diversity_weight * diversity


def client_loss(p, x, y, generated, label, weight):
    ce = cross_entropy(relu(x @ p["extractor"]) @ p["w"] + p["b"], y)
    extra = cross_entropy(generated @ p["w"] + p["b"], label)
    return ce + weight * extra, ce, extra


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

    def init(key):
        extractor = jax.random.normal(key, (PIXELS, width))
        return Network(extractor, layers.init_linear(key, width, CLASSES))

    return Model("linear", init, features, layers.linear, width, CLASSES)


def build(**options):
    setup = Setup(
        shared=linear_model,
        feature_dim=WIDTH,
        num_classes=CLASSES,
        optimizer=optimizers.sgd(0.1, momentum=0.0, weight_decay=0.0, clip_norm=0.0),
        prepare=images.prepare((0.0,), (1.0,), "raw"),
    )
    return algorithms.build("fedgen", setup, **{**SMALL, **options})


def random_generator(seed=0):
    draw = np.random.default_rng(seed)
    return {
        "w1": draw.normal(size=(NOISE + CLASSES, HIDDEN)),
        "b1": draw.normal(size=HIDDEN),
        "w2": draw.normal(size=(HIDDEN, WIDTH)),
        "b2": draw.normal(size=WIDTH),
    }


def to_generator(params):
    p = {name: jnp.asarray(value) for name, value in params.items()}
    return generators.Generator(
        {"kernel": p["w1"], "bias": p["b1"]}, {"kernel": p["w2"], "bias": p["b2"]}
    )


def to_header(kernel, bias):
    return {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}


def server_case(seed=0):
    """Headers and label counts of four participants; the third does not count."""
    draw = np.random.default_rng(seed)
    kernels = draw.normal(size=(4, WIDTH, CLASSES))
    biases = draw.normal(size=(4, CLASSES))
    counts = np.array([[3, 1, 0, 0], [0, 5, 2, 0], [0, 0, 0, 0], [2, 2, 1, 0]])
    kernels[2], biases[2] = 0, 0  # as the server is handed them
    return kernels, biases, counts, np.array([4, 7, 0, 5])


def to_cohort(weights, round=1):
    key = jax.random.key(round)
    return Cohort(jnp.asarray(weights, jnp.float32), jnp.int32(round), key)


def to_uploads(kernels, biases, counts):
    return generator_server.Upload(
        to_header(kernels, biases), jnp.asarray(counts, kernels.dtype)
    )


def start_of(params):
    """The server state before the first round, with a given generator."""
    generator = to_generator(params)
    header = to_header(np.zeros((WIDTH, CLASSES)), np.zeros(CLASSES))
    shared = generator_server.Shared(header, generator, jnp.zeros(CLASSES))
    return generator_server.ServerState(shared, optax.adam(0.1).init(generator))


@pytest.mark.parametrize("diversity_weight", [1.0, 0.0])
def test_two_server_steps_equal_the_equations(diversity_weight, x64):
    algorithm = build(
        server_lr=0.01,
        server_steps=3,
        server_batch_size=6,
        diversity_weight=diversity_weight,
    )
    kernels, biases, counts, weights = server_case()
    params = random_generator()
    state = start_of(params)
    update = jax.jit(algorithm.server.update)
    there = weights > 0
    moments = [{n: np.zeros(v.shape) for n, v in params.items()} for _ in (1, 2)]
    steps = 0
    for round in (1, 2):
        cohort = to_cohort(weights, round)
        for i in range(3):
            key = jax.random.fold_in(cohort.key, i)
            total = jnp.asarray(counts[there].sum(axis=0), jnp.float64)
            label, noise = map(np.asarray, generators.draw(key, total, 6, NOISE))
            step = gradient(
                lambda p, label=label, noise=noise: generator_loss(
                    p,
                    kernels[there],
                    biases[there],
                    counts[there],
                    label,
                    noise,
                    diversity_weight,
                ),
                params,
            )
            steps += 1
            for n in params:  # Adam
                moments[0][n] = 0.9 * moments[0][n] + 0.1 * step[n]
                moments[1][n] = 0.999 * moments[1][n] + 0.001 * step[n] ** 2
                first = moments[0][n] / (1 - 0.9**steps)
                second = moments[1][n] / (1 - 0.999**steps)
                params[n] = params[n] - 0.01 * first / (np.sqrt(second) + 1e-8)
        state = update(state, to_uploads(kernels, biases, counts), cohort)
        assert_trees_close(state.shared.generator, to_generator(params), atol=1e-10)
        share = weights / weights.sum()
        header = to_header(
            np.tensordot(share, kernels, 1), np.tensordot(share, biases, 1)
        )
        assert_trees_close(state.shared.header, header, atol=1e-12)
        np.testing.assert_array_equal(state.shared.label_counts, [5, 8, 3, 0])


@pytest.mark.parametrize("round", [1, 2])
def test_a_client_step_equals_the_equations(round, x64):
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(7, PIXELS)), np.array([0, 1, 2, 3, 3, 1, 0])
    params = {
        "extractor": draw.normal(size=(PIXELS, WIDTH)),
        "w": draw.normal(size=(WIDTH, CLASSES)),
        "b": draw.normal(size=CLASSES),
    }
    generator = random_generator()
    # The server knows no counts before the first round, and so no generator.
    counts = np.array([5.0, 0.0, 3.0, 1.0]) * (round > 1)
    client = build(weight=2.0).client(linear_model())
    rows = Batches(jnp.array([[0, 1, 2, 3, 4, 5, 6, -1]]), jnp.int32(1))
    data = Examples(jnp.asarray(x.reshape(7, 2, 3, 1)), jnp.asarray(y, jnp.int32))
    key = jax.random.key(3)
    out = client.update(
        generator_server.Shared(
            to_header(params["w"], params["b"]),
            to_generator(generator),
            jnp.asarray(counts),
        ),
        headers.ClientState(jnp.asarray(params["extractor"])),
        Visit(data, rows, rows, rows, jnp.int32(round)),
        key,
    )
    # The only step's key for the loss, as `local.train` derives it.
    _, loss_key = jax.random.split(jax.random.fold_in(key, 0))
    label, noise = map(
        np.asarray, generators.draw(loss_key, jnp.asarray(counts), 8, NOISE)
    )
    features = generate(generator, label, noise)
    weight = 2.0 * (round > 1)
    total, ce, extra = client_loss(params, x, y, features, label, weight)
    np.testing.assert_allclose(out.metrics["total"], [total], atol=1e-12)
    np.testing.assert_allclose(out.metrics["ce"], [ce], atol=1e-12)
    expected = [extra if round > 1 else 0]
    np.testing.assert_allclose(out.metrics["generated"], expected, atol=1e-12)
    step = gradient(lambda p: client_loss(p, x, y, features, label, weight)[0], params)
    new = {name: params[name] - 0.1 * step[name] for name in params}
    np.testing.assert_allclose(out.state.extractor, new["extractor"], atol=1e-12)
    header = to_header(new["w"], new["b"])
    assert_trees_close(out.upload.header, header, atol=1e-12)
    assert_trees_equal(out.shared.header, out.upload.header)
    assert_trees_equal(out.shared.generator, to_generator(generator))
    np.testing.assert_array_equal(out.upload.label_counts, [2, 2, 1, 2])


def test_labels_are_drawn_by_their_counts():
    drawn = generators.draw(jax.random.key(0), jnp.array([3.0, 0.0, 1.0, 0.0]), 4000, 2)
    share = np.bincount(drawn.label, minlength=4) / 4000
    # Standard deviation of a share: sqrt(3/16 / 4000) = 0.007.
    np.testing.assert_allclose(share[[0, 2]], [0.75, 0.25], atol=0.03)
    assert share[1] == share[3] == 0
    assert abs(float(drawn.noise.std()) - 1) < 0.05


def test_diversity_is_one_for_a_generator_that_ignores_noise():
    noise = jax.random.normal(jax.random.key(0), (5, NOISE))
    assert float(generators.diversity(noise, jnp.ones((5, WIDTH)))) == 1
    # Two points: half of the four pairs are apart, by 4 in noise and 3 in features.
    noise, features = jnp.array([[0.0], [2.0]]), jnp.array([[1.0], [-2.0]])
    expected = np.exp(-4 * 3 / 2)
    np.testing.assert_allclose(
        generators.diversity(noise, features), expected, rtol=1e-6
    )


def test_participants_without_weight_do_not_exist(x64):
    algorithm = build(server_steps=2, server_batch_size=4)
    kernels, biases, counts, weights = server_case()
    start = start_of(random_generator())
    update = jax.jit(algorithm.server.update)
    got = update(start, to_uploads(kernels, biases, counts), to_cohort(weights))
    there = weights > 0
    few = to_uploads(kernels[there], biases[there], counts[there])
    assert_trees_close(update(start, few, to_cohort(weights[there])), got, atol=1e-12)


@pytest.fixture(scope="module")
def played():
    """States before, between and after two rounds, and what they reported."""
    with jax.numpy_dtype_promotion("strict"):
        toy = Toy("fedgen", same=True, server_steps=3, **SMALL)
        states, reports = [toy.init()], []
        play = toy.make()
        for _ in (1, 2):
            state, report = play(jax.tree.map(jnp.copy, states[-1]))
            states.append(state)
            reports.append(report)
        return toy, states, reports


@pytest.mark.slow
def test_generator_and_optimizer_are_trained_and_kept(played):
    _, states, _ = played
    assert [int(state.server.optimizer[0].count) for state in states] == [0, 3, 6]
    for before, after in itertools.pairwise(states):
        for part in generators.Generator._fields:
            old, new = (
                getattr(s.server.shared.generator, part) for s in (before, after)
            )
            gap = tree.squared_norm(jax.tree.map(jnp.subtract, old, new))
            assert float(gap) > 0, part


@pytest.mark.slow
def test_clients_use_the_generator_from_the_second_round_on(played):
    _, states, reports = played
    assert (states[0].server.shared.label_counts == 0).all()
    assert (reports[0].metrics["generated"] == 0).all()
    assert (reports[1].metrics["generated"] > 0).all()


def test_label_counts_are_those_of_the_cohort(played):
    toy, states, reports = played
    labels = np.asarray(toy.examples.y)
    own = np.concatenate([labels[toy.train[k]] for k in reports[0].cohort])
    np.testing.assert_array_equal(
        states[1].server.shared.label_counts, np.bincount(own, minlength=4)
    )


def test_the_toy_is_evaluated_without_nan(played):
    toy, states, _ = played
    for state in states:
        assert np.isfinite(toy.evaluate()(state).loss).all()


def test_the_ensemble_understands_a_trained_generator_better(x64):
    algorithm = build(server_steps=30, server_batch_size=16, server_lr=0.01)
    kernels, biases, counts, weights = server_case()
    state = start_of(random_generator())
    uploads = to_uploads(kernels, biases, counts)
    after = jax.jit(algorithm.server.update)(state, uploads, to_cohort(weights))
    drawn = generators.draw(jax.random.key(9), after.shared.label_counts, 50, NOISE)
    label, noise = map(np.asarray, drawn)
    there = weights > 0

    def loss(state):
        hidden, out = state.shared.generator
        p = {"w1": hidden["kernel"], "b1": hidden["bias"]}
        p = {**p, "w2": out["kernel"], "b2": out["bias"]}
        p = {name: np.asarray(value) for name, value in p.items()}
        given = (kernels[there], biases[there], counts[there], label, noise)
        return generator_loss(p, *given, diversity_weight=1.0).real

    assert loss(after) < loss(state) / 2


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
        {"diversity_weight": -1.0},
        {"noise_dim": 0},
        {"hidden_dim": 0},
        {"server_lr": -0.1},
        {"server_steps": 0},
        {"server_batch_size": 0},
    ],
)
def test_values_out_of_range_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"{name} must be at least \d; got {value}"):
        build(**option)
