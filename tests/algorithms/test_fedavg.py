"""FedAvg against the oracle."""

import jax.numpy as jnp
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.fedavg import ClientState
from fedjax_mrl.models import cnn
from tests import oracle
from tests.algorithms import parity
from tests.algorithms.tiny import WIDTH, Tiny


def build(setup, options):
    sizes = {"channels": (4, 6), "hidden": 20}
    shared = lambda width: cnn.cnn(
        "A", oracle.SHAPE, setup.num_classes, feature_dim=width, **sizes
    )
    return algorithms.build("fedavg", setup._replace(shared=shared))


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    server = case.network("init.server.large")
    states = [ClientState()] * len(case.clients)
    for played in parity.replay(case, difference, server, states, {"total": "ce"}):
        t = played.number
        difference.network(f"r{t}.server.large", played.server)
        for k in case.clients:
            difference.network(f"r{t}.c{k}.large", played.shared[k])
            for shared, key in (
                (played.shared[k], f"r{t}.eval_local.c{k}.logits"),
                (played.server, f"r{t}.eval_global.logits"),
            ):
                logits = case.client(k).predict(shared, ClientState(), case.held())
                difference.array(key, logits["global"])
    return difference


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float64(x64):
    for path in oracle.cases("fedavg"):
        compare(path, jnp.float64).check(1e-9, at_least=117)


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float32():
    for path in oracle.cases("fedavg"):
        compare(path, jnp.float32).check(2e-5, at_least=117)


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_another_architecture_is_refused(name):
    tiny = Tiny(name)
    tiny.algorithm.client(tiny.models[0])
    with pytest.raises(
        ValueError,
        match=r"architecture of the shared model common \(39 parameters\); got m5 "
        r"\(48 parameters\). Set --models and --shared-model",
    ):
        tiny.algorithm.client(tiny.models[1])


def test_the_shared_model_has_the_width_of_the_clients():
    tiny = Tiny("fedavg", widths=(WIDTH,))
    assert tiny.init().server.header["kernel"].shape == (WIDTH, 3)
