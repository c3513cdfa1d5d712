"""What is exported computes what the federation does, for every method and head."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import linen as nn

import fedjax_mrl as fm
from fedjax_mrl import packing
from fedjax_mrl.exporting import folder, program
from fedjax_mrl.exporting.error import ExportError
from tests.exporting.federations import features
from tests.helpers import methods

PROTOTYPES = ("fedproto", "fedtgp")  # clients know no class in the first round


def exported(federation, tmp_path, **options):
    """The model of client 2, read again."""
    return fm.load_model(federation.export(tmp_path / "model", 2, **options))


@pytest.mark.parametrize("algorithm", methods())
def test_every_method_and_head_has_the_federations_logits(algorithm, tmp_path):
    federation = features(algorithm)
    if algorithm in PROTOTYPES:
        federation.fit(rounds=2)
    x = federation.dataset.x_test
    found = {}
    for head in federation.algorithm.heads:
        model = exported(federation, tmp_path / head, head=head)
        found[head] = federation.predict(x, client=2, head=head)
        np.testing.assert_allclose(model.predict(x), found[head], atol=1e-5)
        assert model.description.head == head
        np.testing.assert_allclose(model.probabilities(x).sum(axis=-1), 1)
    assert len({logits.tobytes() for logits in found.values()}) == len(found)


def test_a_batch_may_have_any_size_and_be_a_single_example(tmp_path):
    federation = features("standalone")
    model = exported(federation, tmp_path)
    x = np.tile(federation.dataset.x_test, (20, 1))  # more than a block
    expected = federation.predict(x, client=2)
    for size in (1, 3, 300):
        np.testing.assert_allclose(model.predict(x[:size]), expected[:size], atol=1e-5)
    assert model.predict(x[0]).shape == (3,)
    assert model.probabilities(x[0]).shape == (3,)


def test_the_program_is_for_all_platforms_and_names_client_round_and_digest(tmp_path):
    federation = features("fedavg")
    path = federation.export(tmp_path / "model", 2)
    made = jax.export.deserialize(bytearray((path / folder.PROGRAM).read_bytes()))
    assert set(made.platforms) == {"cpu", "cuda", "rocm", "tpu"} == {*program.PLATFORMS}
    digest = federation.digester()(federation.state)[0]
    assert made.fun_name == f"client_2_round_0_digest_{digest}"
    described = json.loads((path / folder.DESCRIPTION).read_text())
    assert described["digest"] == digest
    with safetensors.safe_open(path / folder.ARRAYS, "np") as file:
        assert file.metadata()["digest"] == digest
        assert json.loads(file.metadata()["classes"]) == ["ant", "bee", "cat"]


ALONE = """
import sys
import jax, jax.export, numpy as np
made = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
x = np.load(sys.argv[2])
np.save(sys.argv[3], made.call(x))
assert not [name for name in sys.modules if name.startswith(("fedjax", "flax"))]
"""


@pytest.mark.slow
def test_images_of_a_cnn_need_nothing_of_this_package(tmp_path):
    federation = fm.Federation(
        algorithm="fedmrl",
        models=("cnn5",),
        shared_model="cnn5",
        shared_dim=4,
        feature_dim=6,
        num_clients=1,
        partition="iid",
        rounds=1,
    )
    federation.state = federation.init()
    path = federation.export(tmp_path / "model", 0)
    x = federation.dataset.x_test[:5]
    np.save(tmp_path / "x.npy", x)
    clean = {key: v for key, v in os.environ.items() if key != "PYTHONPATH"}
    files = [path / folder.PROGRAM, tmp_path / "x.npy", tmp_path / "logits.npy"]
    subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, files)],
        check=True,
        cwd=tmp_path,
        env=clean | {"JAX_PLATFORMS": "cpu"},
    )
    expected = federation.predict(x, client=0)
    np.testing.assert_allclose(np.load(files[-1]), expected, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["fedmrl", "fedapen"])
def test_safetensors_hold_all_networks(algorithm, tmp_path):
    federation = features(algorithm)
    path = federation.export(tmp_path / "model", 2)
    arrays = safetensors.numpy.load_file(path / folder.ARRAYS)
    expected = packing.pack(federation.networks(2))
    assert arrays.keys() == expected.keys()  # features are used as they are
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


def test_the_normalisation_of_images_is_in_every_file(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1))
    y = np.arange(12) % 3
    federation = fm.Federation(
        algorithm="standalone",
        models=("mlp",),
        dataset=fm.arrays(x, y, x, y, mean=0.25, std=0.5),
        partition="iid",
        num_clients=1,
        rounds=1,
    )
    federation.state = federation.init()
    path = federation.export(tmp_path / "model", 0)
    arrays = safetensors.numpy.load_file(path / folder.ARRAYS)
    assert arrays["normalisation/mean"] == 0.25 and arrays["normalisation/std"] == 0.5
    model = fm.load_model(path)
    assert (model.description.mean, model.description.std) == ((0.25,), (0.5,))
    np.testing.assert_allclose(
        model.predict(x[..., 0]), federation.predict(x, client=0), atol=1e-5
    )  # grey images without the axis of channels


class OneByOne(nn.Module):
    """A network that must know the size of its batch."""

    feature_dim: int = 8

    @nn.compact
    def __call__(self, x):
        rows = [nn.tanh(x[i]) for i in range(len(x))]
        return nn.Dense(self.feature_dim)(jax.numpy.stack(rows))


def test_a_network_that_must_know_the_batchs_size_is_exported_all_the_same(tmp_path):
    federation = features("standalone", models=(fm.model(OneByOne()),))
    x = federation.dataset.x_test
    expected = federation.predict(x, client=2)
    model = exported(federation, tmp_path)
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)


class Mixing(nn.Module):
    """A network whose outputs depend on the other examples of the batch."""

    feature_dim: int = 8

    @nn.compact
    def __call__(self, x):
        rows = [x[i] - x[-1] for i in range(len(x))]
        return nn.Dense(self.feature_dim)(9 * jax.numpy.stack(rows))


def test_a_program_that_computes_something_else_is_not_written(tmp_path):
    federation = features("standalone", models=(fm.model(Mixing()),))
    with pytest.raises(ExportError, match="other logits than the federation"):
        federation.export(tmp_path / "model", 2)
    assert not any(tmp_path.iterdir())


def test_tokens_are_exported(tmp_path):
    class Bag(nn.Module):
        feature_dim: int = 8

        @nn.compact
        def __call__(self, x):
            return nn.Embed(9, self.feature_dim)(x).mean(axis=1)

    x, y = np.arange(60).reshape(12, 5) % 9, np.arange(12) % 3
    federation = fm.Federation(
        algorithm="standalone",
        models=[fm.model(Bag())],
        dataset=fm.arrays(x, y, x, y),
        num_clients=1,
        partition="iid",
        rounds=1,
    )
    federation.state = federation.init()
    model = fm.load_model(federation.export(tmp_path / "model", 0))
    assert (model.description.kind, model.description.dtype) == ("tokens", "int32")
    expected = federation.predict(x, client=0)
    np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)


def test_the_point_global_takes_the_newest_aggregate(tmp_path):
    federation = features("fedavg")
    federation.fit()
    x = federation.dataset.x_test
    for point in ("local", "global"):
        model = exported(federation, tmp_path / point, point=point)
        expected = federation.predict(x, client=2, point=point)
        np.testing.assert_allclose(model.predict(x), expected, atol=1e-5)
    other = federation.predict(x, client=2)
    assert np.abs(model.predict(x) - other).max() > 1e-3


def test_classes_that_a_head_does_not_know_have_probability_zero(tmp_path):
    federation = features("fedproto")
    with pytest.raises(ExportError, match="knows no class yet"):
        federation.export(tmp_path / "model", 2)
    held = federation.partition.train
    labels = federation.dataset.y_train
    partition = [part[labels[part] != 1] for part in held], federation.partition.test
    federation = features("fedproto", partition=partition)
    federation.fit()
    model = exported(federation, tmp_path, point="global")
    assert model.description.unknown_classes == ("bee",)
    shares = model.probabilities(federation.dataset.x_test)
    assert (shares[:, 1] == 0).all() and (shares[:, [0, 2]] > 0).all()


def test_the_classes_of_a_clients_own_task_have_its_names(tmp_path):
    tasks = {"turned": [2, 0, 1], "ant or not": [0, 1, 1]}
    federation = features("standalone", tasks=tasks)
    names = [
        fm.load_model(federation.export(tmp_path / str(k), k)).classes for k in (0, 1)
    ]
    assert names == [("bee", "cat", "ant"), ("0", "1")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client": 3}, "number from 0 to 2, as client=0 or --client 0; got 3"),
        ({"client": None}, "none was given"),
        ({"client": True}, "got True"),
        ({"head": "own"}, "There is no head 'own'"),
        ({"point": "here"}, "There is no point 'here'"),
        ({"formats": "jax,onnx"}, "There is no format 'onnx'"),
        ({"formats": ()}, "at least one format"),
        ({"formats": "torch"}, "made of the five CNNs, .* this network has fc1, fc2"),
        ({"path": ""}, "must name a file or folder"),
        ({"path": "gs://bucket/model"}, "on a file system of this machine"),
    ],
)
def test_what_cannot_be_exported_is_refused(options, message, tmp_path):
    federation = features("standalone")
    given = {"client": 2, "path": tmp_path / "model"} | options
    with pytest.raises(ValueError, match=message):
        federation.export(**given)
    assert not any(tmp_path.iterdir())


def test_a_federation_that_was_not_trained_is_refused(tmp_path):
    federation = features("standalone")
    federation.state = None
    with pytest.raises(ValueError, match="no state yet"):
        federation.export(tmp_path / "model", 2)


@pytest.mark.parametrize("package", ["flatbuffers", "safetensors"])
def test_a_missing_package_is_named_with_its_remedy(package, tmp_path, monkeypatch):
    federation = features("standalone")
    path = federation.export(tmp_path / "model", 2)
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(ExportError, match=rf"python -m pip install {package}$"):
        federation.export(tmp_path / "other", 2)
    if package == "flatbuffers":
        with pytest.raises(ExportError, match="pip install flatbuffers"):
            fm.load_model(path)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 5)), r"x must be features \[6\] like the training features"),
        (np.full((2, 6), np.nan), "finite"),
        (np.array([["a"] * 6]), "must be numbers"),
    ],
)
def test_examples_that_do_not_fit_are_refused(x, message, tmp_path):
    model = exported(features("standalone"), tmp_path)
    with pytest.raises(ValueError, match=message):
        model.predict(x)
