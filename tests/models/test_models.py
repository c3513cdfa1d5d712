"""Sizes, arithmetic, initial weights and discovery of the networks."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import discovery, models, tree
from fedjax_mrl.models import layers
from fedjax_mrl.simulation import flops

CIFAR = (32, 32, 3)
# Second convolution's filters, FC1, parameters at 10 and 100 classes, forward
# multiply-adds at 10: the paper's table for 32x32x3 and a representation of 500.
TABLE = {
    "cnn1": (32, 2000, 2_621_558, 2_666_648, 4_825_800),
    "cnn2": (16, 2000, 1_815_142, 1_860_232, 3_385_800),
    "cnn3": (32, 1000, 1_320_558, 1_365_648, 3_525_800),
    "cnn4": (32, 800, 1_060_358, 1_105_448, 3_265_800),
    "cnn5": (32, 500, 670_058, 715_148, 2_875_800),
}


@functools.cache
def shapes(name, input_shape=CIFAR, num_classes=10, **options):
    """A model and the shapes of its network."""
    model = models.build(name, input_shape, num_classes, **options)
    return model, jax.eval_shape(model.init, jax.random.key(0))


def images(input_shape, batch=2):
    return jax.ShapeDtypeStruct((batch, *input_shape), jnp.float32)


@pytest.mark.parametrize("name", TABLE)
def test_a_cnn_has_the_parameters_of_the_paper(name):
    filters, hidden, ten, hundred, _ = TABLE[name]
    _, network = shapes(name)
    assert tree.num_parameters(network) == ten
    assert tree.num_parameters(shapes(name, num_classes=100)[1]) == hundred
    found = {part: p["kernel"].shape for part, p in network.extractor.items()}
    assert found == {
        "conv1": (5, 5, 3, 16),
        "conv2": (5, 5, 16, filters),
        "fc1": (5 * 5 * filters, hidden),
        "fc2": (hidden, 500),
    }
    assert network.header["kernel"].shape == (500, 10)


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("cnn5", 100, 465_658),
        ("cnn5", 250, 542_308),
        ("cnn5", 500, 670_058),
        ("cnn1", 100, 1_817_158),
    ],
)
def test_a_narrowed_cnn_has_the_parameters_of_the_paper(name, width, expected):
    model, network = shapes(name, feature_dim=width)
    assert tree.num_parameters(network) == expected
    assert model.feature_dim == width


@pytest.mark.parametrize(
    ("width", "expected"), [(100, 300_500), (250, 375_500), (500, 500_500)]
)
def test_the_projector_has_the_parameters_of_the_paper(width, expected):
    made = jax.eval_shape(
        lambda key: layers.init_linear(key, width + 500, 500), jax.random.key(0)
    )
    assert tree.num_parameters(made) == expected


@pytest.mark.parametrize("name", TABLE)
def test_a_forward_pass_has_the_multiply_adds_of_the_paper(name):
    model, network = shapes(name, lowering="im2col")
    found = flops.count(model.logits, network, images(CIFAR, batch=1))
    assert found == 2 * TABLE[name][-1]
    # Examples cost the same, each.
    assert flops.count(model.logits, network, images(CIFAR, batch=3)) == 3 * found


def test_the_arithmetic_of_a_loop_is_counted_as_often_as_told():
    @jax.jit
    def product(x):
        return x @ x

    def loop(x):
        return jax.lax.fori_loop(0, 7, lambda i, x: product(x), x) @ x

    square = jax.ShapeDtypeStruct((5, 5), jnp.float32)
    once = 2 * 5**3
    assert flops.count(loop, square) == 2 * once
    assert flops.count(loop, square, repeat={"product": 7}) == 8 * once
    assert flops.count(loop, square, repeat={"product": 0}) == once


@functools.cache
def scaled(name, input_shape, feature_dim):
    """Initial weights and biases in units of 1/sqrt(fan in), normalisation apart."""
    model = models.build(name, input_shape, 10, feature_dim=feature_dim)
    network = jax.device_get(jax.jit(model.init)(jax.random.key(3)))
    flat = jax.tree_util.tree_leaves_with_path(network)
    by_layer = {}
    for path, leaf in flat:
        by_layer.setdefault(path[:-1], {})[path[-1].key] = leaf
    weights, biases = [], []
    for part in by_layer.values():
        if "scale" in part:  # group normalisation starts as the identity
            assert (part["scale"] == 1).all() and (part["bias"] == 0).all()
            continue
        fan_in = np.prod(part["kernel"].shape[:-1])
        weights.append(part["kernel"].ravel() * np.sqrt(fan_in))
        biases.append(part["bias"].ravel() * np.sqrt(fan_in))
    return weights, biases


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "input_shape"),
    [("cnn5", (16, 16, 1)), ("mlp", (4, 4, 1)), ("resnet8", (8, 8, 3))],
)
def test_weights_and_biases_are_uniform_between_plus_and_minus_the_bound(
    name, input_shape
):
    for parts in scaled(name, input_shape, 64):
        for part in parts:
            assert np.abs(part).max() <= 1
        every = np.concatenate(parts)
        # A uniform number in [-1, 1] has mean 0, variance 1/3 and fourth moment 1/5,
        # so means over n of it and of its square have these standard deviations.
        n = every.size
        assert abs(every.mean()) < 5 * np.sqrt(1 / 3 / n)
        assert abs((every**2).mean() - 1 / 3) < 5 * np.sqrt((1 / 5 - 1 / 9) / n)
        assert np.abs(every).max() > 1 - 10 / n


def test_layers_and_keys_start_differently():
    model = models.build("mlp", (4, 4, 1), 10, feature_dim=10, hidden=10)
    one, other = (jax.jit(model.init)(jax.random.key(k)) for k in (0, 1))
    kernels = [one.extractor["fc2"]["kernel"], one.header["kernel"]]
    kernels += [other.extractor["fc2"]["kernel"], other.header["kernel"]]
    for i, a in enumerate(kernels):
        for b in kernels[:i]:
            assert not np.isclose(a, b).any()


@pytest.mark.slow
@pytest.mark.parametrize("input_shape", [(28, 28, 1), (64, 48, 3), (16, 16, 1)])
@pytest.mark.parametrize("name", models.names())
def test_every_model_takes_images_of_any_usual_size(name, input_shape):
    model, network = shapes(name, input_shape, 7, feature_dim=20)
    x = images(input_shape)
    features = jax.eval_shape(model.features, network.extractor, x)
    assert features.shape == (2, 20)
    assert all(leaf.size for leaf in jax.tree.leaves(network))
    assert jax.eval_shape(model.logits, network, x).shape == (2, 7)
    assert (model.name, model.num_classes) == (name, 7)


def test_another_image_gives_other_logits_and_no_representation_is_negative():
    model = models.build("cnn5", (16, 16, 1), 3, feature_dim=20)
    network = jax.jit(model.init)(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 1)), jnp.float32)
    features = jax.jit(model.features)(network.extractor, x)
    assert (features >= 0).all() and not np.allclose(features[0], features[1])
    by_hand = features @ network.header["kernel"] + network.header["bias"][None]
    np.testing.assert_allclose(model.head(network.header, features), by_hand)


@pytest.mark.parametrize(
    ("name", "input_shape", "message"),
    [
        ("cnn1", (15, 32, 3), "cnn1 needs images of at least 16x16 .* got 15x32"),
        ("cnn5", (32, 15, 3), "at least 16x16 pixels; got 32x15.*Choose a smaller"),
        ("resnet8", (3, 3, 1), "at least 4x4 pixels; got 3x3"),
        ("mlp", (), "inputs of at least one number"),
        ("cnn5", (8, 8), r"shape \(height, width, channels\); got \(8, 8\).*mlp"),
    ],
)
def test_an_image_that_is_too_small_is_refused_with_the_size_that_fits(
    name, input_shape, message
):
    with pytest.raises(ValueError, match=message):
        models.build(name, input_shape, 10)


@pytest.mark.parametrize(("num_classes", "feature_dim"), [(1, 10), (10, 0)])
def test_a_network_without_classes_or_representation_is_refused(
    num_classes, feature_dim
):
    message = f"got num_classes={num_classes}, feature_dim={feature_dim}"
    with pytest.raises(ValueError, match=message):
        models.build("mlp", (8, 8, 1), num_classes, feature_dim=feature_dim)


def test_resnet8_has_seven_convolutions_and_two_on_shortcuts():
    _, network = shapes("resnet8")
    kernels = [leaf.shape for leaf in jax.tree.leaves(network) if leaf.ndim == 4]
    assert len([shape for shape in kernels if shape[:2] == (3, 3)]) == 7
    # 1x1 where the number of channels changes.
    assert sorted(shape for shape in kernels if shape[:2] == (1, 1)) == [
        (1, 1, 16, 32),
        (1, 1, 32, 64),
    ]


def test_resnet8_normalises_each_image_by_itself():
    model = models.build("resnet8", (8, 8, 1), 3, feature_dim=8)
    network = jax.jit(model.init)(jax.random.key(0))
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(3, 8, 8, 1)), jnp.float32)
    logits = jax.jit(model.logits)
    other = x.at[1:].multiply(9.0)
    np.testing.assert_allclose(
        logits(network, x)[0], logits(network, other)[0], atol=1e-6
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes packages of given files; they are gone after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def make(name, **files):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for module, text in files.items():
            (folder / f"{module}.py").write_text(text)
        return name

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]
    discovery.find.cache_clear()


def test_what_files_export_is_found_by_their_lying_there(package):
    name = package(
        "found_here",
        zebra='__all__ = ["zebra", "ant"]\nzebra, ant, hidden = 1, 2, 3\n',
        class_='__all__ = ["class_"]\nclass_ = 4\n',
        helper="value = 5\n",
    )
    assert discovery.find(name) == {"ant": 2, "class": 4, "zebra": 1}
    assert list(discovery.find(name)) == ["ant", "class", "zebra"]
    assert discovery.get(name, "class", "animal") == 4


def test_a_model_dropped_into_the_folder_can_be_built(tmp_path, monkeypatch, package):
    del package  # cleans up
    (tmp_path / "narrow.py").write_text(
        "from fedjax_mrl.models import mlp\n"
        '__all__ = ["narrow"]\n'
        "def narrow(input_shape, num_classes, *, feature_dim, lowering):\n"
        "    return mlp.mlp(input_shape, num_classes, feature_dim=feature_dim, "
        'hidden=2)._replace(name="narrow")\n'
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    discovery.find.cache_clear()
    assert "narrow" in models.names() and "cnn1" in models.names()
    model = models.build("narrow", (2, 2, 1), 3, feature_dim=5, lowering="auto")
    # 4 pixels to 2, to 5, to 3 classes, each layer with biases.
    made = jax.eval_shape(model.init, jax.random.key(0))
    assert tree.num_parameters(made) == (4 + 1) * 2 + (2 + 1) * 5 + (5 + 1) * 3


def test_a_name_that_two_files_export_is_refused(package):
    export = '__all__ = ["same"]\nsame = 0\n'
    name = package("twice_here", one=export, two=export)
    with pytest.raises(ValueError, match="'same' is exported by both one and two"):
        discovery.find(name)


def test_an_unknown_name_is_answered_with_the_nearest(package):
    with pytest.raises(ValueError, match=r"no model 'resnet9'\. .*mean 'resnet8'\?"):
        models.get("resnet9")
    name = package("near_here", a='__all__ = ["apple", "pear"]\napple = pear = 0\n')
    with pytest.raises(
        ValueError, match=r"no fruit 'aple'.*'apple'.*Valid: apple, pea"
    ):
        discovery.get(name, "aple", "fruit")
    with pytest.raises(ValueError, match=r"no fruit 'zzz'\. Valid"):
        discovery.get(name, "zzz", "fruit")
