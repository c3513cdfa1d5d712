"""The five CNNs as PyTorch has them: equal logits, both ways.

The module is written as in the reference, channels first. Where PyTorch is not
installed it is computed with NumPy, from PyTorch's names and layouts alike.
"""

import importlib.util

import jax
import numpy as np
import pytest
import safetensors.numpy

import fedjax_mrl as fm
from fedjax_mrl import algorithms, models
from fedjax_mrl.exporting.error import ExportError
from fedjax_mrl.models import cnn
from fedjax_mrl.protocol import Network
from tests.helpers import Toy, assert_trees_equal, methods

SHAPE = (20, 17, 3)  # not square, and not all of a pooled row is used


def convolved(x, weight, bias):
    """[B, C, H, W] and [O, C, k, k], then ReLU and 2x2 max-pooling."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
    out = np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]
    batch, channels, high, wide = out.shape
    out = out[:, :, : high // 2 * 2, : wide // 2 * 2]
    pairs = out.reshape(batch, channels, high // 2, 2, wide // 2, 2)
    return np.maximum(pairs.max((3, 5)), 0)


def representation(x, named, part=""):
    """The extractor of the reference on images [B, C, H, W], with NumPy alone."""
    get = lambda layer: (named[f"{part}{layer}.{kind}"] for kind in ("weight", "bias"))
    x = convolved(convolved(x, *get("conv1")), *get("conv2"))
    x = x.reshape(len(x), -1)
    for layer in ("fc1", "fc2"):
        weight, bias = get(layer)
        x = np.maximum(x @ weight.T + bias, 0)
    return x


def dense(x, named, name):
    return x @ named[f"{name}.weight"].T + named[f"{name}.bias"]


def images(number=3):
    return np.random.default_rng(0).normal(size=(number, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("name", cnn.__all__)
def test_logits_from_the_state_dict_are_the_networks(name):
    model = models.build(name, SHAPE, 7, feature_dim=11)
    network = model.init(jax.random.key(0))
    named = fm.to_torch(network)
    x = images()
    logits = dense(representation(x.transpose(0, 3, 1, 2), named), named, "fc3")
    np.testing.assert_allclose(logits, model.logits(network, x), atol=1e-5)


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")
def test_pytorch_itself_has_the_same_logits_and_trains_what_comes_back():
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, channels, hidden, width, classes):
            super().__init__()
            self.conv1 = nn.Conv2d(3, channels[0], 5)
            self.conv2 = nn.Conv2d(*channels, 5)
            self.fc1 = nn.Linear(channels[1] * 2 * 1, hidden)
            self.fc2 = nn.Linear(hidden, width)
            self.fc3 = nn.Linear(width, classes)

        def forward(self, x):
            for layer in (self.conv1, self.conv2):
                x = nn.functional.max_pool2d(layer(x).relu(), 2)
            x = self.fc2(self.fc1(x.flatten(1)).relu()).relu()
            return self.fc3(x)

    model = models.build("cnn2", SHAPE, 7, feature_dim=11)
    network, module = model.init(jax.random.key(0)), Net((16, 16), 2000, 11, 7)
    x = images()
    channels_first = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())

    def load(network):
        named = fm.to_torch(network)
        module.load_state_dict({n: torch.from_numpy(a) for n, a in named.items()})
        return module(channels_first).detach().numpy()

    np.testing.assert_allclose(load(network), model.logits(network, x), atol=1e-5)
    module.fc3.reset_parameters()
    module.conv1.reset_parameters()
    trained = fm.from_torch(module.state_dict(), like=network)
    expected = module(channels_first).detach().numpy()
    np.testing.assert_allclose(expected, model.logits(trained, x), atol=1e-5)


def test_a_personal_model_of_fedmrl_has_the_exported_heads_logits(tmp_path):
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 256, (12, *SHAPE)), np.arange(12) % 3
    federation = fm.Federation(
        models=("cnn2",),
        shared_model="cnn5",
        dataset=fm.arrays(x, y, x, y, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4)),
        shared_dim=4,
        feature_dim=6,
        num_clients=1,
        partition="iid",
        rounds=1,
    )
    federation.state = federation.init()
    path = federation.export(tmp_path / "model", 0, formats=["torch"])
    file = path / "torch_state_dict.safetensors"
    with safetensors.safe_open(file, "np") as opened:
        facts = opened.metadata()
    assert facts["digest"] == federation.digester()(federation.state)[0]
    assert facts["mean"] == "[0.3, 0.4, 0.5]"
    named = safetensors.numpy.load_file(file)
    inputs = ((x / 255 - [0.3, 0.4, 0.5]) / [0.2, 0.3, 0.4]).transpose(0, 3, 1, 2)
    both = [representation(inputs, named, part) for part in ("shared.", "private.")]
    fused = dense(np.concatenate(both, axis=1), named, "projector.fc3")
    for head, logits in {
        "mix_large": dense(fused, named, "private.fc3"),
        "mix_small": dense(fused[:, :4], named, "shared.fc3"),
    }.items():
        expected = federation.predict(x, client=0, head=head)
        np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["fml", "fedavg"])
def test_a_client_predicts_with_networks_that_come_from_pytorch(algorithm):
    x = np.random.default_rng(1).integers(0, 256, (6, *SHAPE))
    federation = fm.Federation(
        algorithm=algorithm,
        models=("cnn5",),
        shared_model="cnn5",
        dataset=fm.arrays(x, np.arange(6) % 3, x, np.arange(6) % 3),
        feature_dim=6,
        num_clients=1,
        partition="iid",
        rounds=1,
    )
    federation.state = federation.init()
    like = federation.networks(0)
    named = {name: 1.5 * array for name, array in fm.to_torch(like).items()}
    networks = fm.from_torch(named, like=like)
    client = federation.client(0)
    state = client.from_networks(networks)
    assert_trees_equal(state[1], networks["shared"])
    part = networks.get("private", networks["shared"])
    model = federation.groups[0].model
    inputs = federation.setup.prepare.test(jax.numpy.asarray(x, np.uint8), np.arange(6))
    found = client.predict(state, x.astype(np.uint8))
    np.testing.assert_allclose(found, model.logits(part, inputs), atol=1e-4)
    with pytest.raises(ValueError, match="are missing"):
        client.from_networks({})


def test_networks_come_back_bit_for_bit_whatever_the_order_of_names():
    model = models.build("cnn3", SHAPE, 7, feature_dim=11)
    network, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
    named = fm.to_torch(network)
    shuffled = {name: named[name] for name in sorted(named, reverse=True)}
    assert_trees_equal(fm.from_torch(shuffled, like=other), jax.device_get(network))


def test_a_federation_begins_with_a_network_of_pytorch():
    model = models.build("cnn5", (32, 32, 3), 10, feature_dim=6)
    network = jax.device_get(model.init(jax.random.key(5)))
    begun = fm.from_torch(fm.to_torch(network), like=network)
    federation = fm.Federation(
        algorithm="standalone",
        models=[model._replace(init=lambda key: begun)],
        num_clients=1,
        partition="iid",
        rounds=1,
    )
    x = federation.dataset.x_test[:2]
    inputs = federation.setup.prepare.test(jax.numpy.asarray(x), np.arange(2))
    found = federation.predict(x, client=0, state=federation.init())
    np.testing.assert_allclose(found, model.logits(network, inputs), atol=1e-5)


@pytest.mark.parametrize("name", methods())
def test_every_methods_networks_go_and_come_back(name):
    toy = Toy(name, same=True)
    model = models.build("cnn5", (16, 16, 1), toy.num_classes, feature_dim=toy.width)
    setup = toy.setup._replace(shared=lambda width: model)
    options = {"shared_dim": toy.width} if name.startswith("fedmrl") else {}
    method = algorithms.build(name, setup, **options)
    key = jax.random.key(0)
    shared = method.server.broadcast(method.server.init(key))
    networks = {"shared": shared, **method.client(model).init(key)._asdict()}
    named = fm.to_torch(networks)
    assert any(layer.endswith("fc3.weight") for layer in named)
    assert_trees_equal(fm.from_torch(named, like=networks), jax.device_get(networks))


def network(**changes):
    named = fm.to_torch(models.build("cnn5", SHAPE, 7).init(jax.random.key(0)))
    return {n: a for n, a in (named | changes).items() if a is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc3.bias": None}, r"but fc3.bias are missing and none are too many"),
        ({"bn.weight": np.ones(3)}, r"none are missing and bn.weight are too many"),
        ({"fc1.weight": np.ones((500, 7))}, r"fc1.weight must be of shape \[500, 64\]"),
        ({"fc1.bias": ["a"]}, r"fc1.bias must be an array of numbers"),
    ],
)
def test_a_state_dict_of_another_network_is_refused(changes, message):
    like = models.build("cnn5", SHAPE, 7).init(jax.random.key(0))
    with pytest.raises(ExportError, match=message):
        fm.from_torch(network(**changes), like=like)


def test_other_networks_are_refused():
    mlp = models.build("mlp", SHAPE, 7).init(jax.random.key(0))
    for call in (fm.to_torch, lambda n: fm.from_torch({}, like=n)):
        with pytest.raises(ExportError, match="this network has fc1, fc2"):
            call(mlp)
        with pytest.raises(ExportError, match="needs networks with an extractor"):
            call(Network((), {"kernel": np.ones((2, 2))}))
