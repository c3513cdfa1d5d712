"""LG-FedAvg against the oracle."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.learning.headers import ClientState
from fedjax_mrl.protocol import Network
from tests import oracle
from tests.algorithms import parity
from tests.algorithms.tiny import WIDTH, Tiny


def build(setup, options):
    return algorithms.build("lg_fedavg", setup)


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    states = [
        ClientState(case.network(f"init.c{k}.large").extractor) for k in case.clients
    ]
    header = {
        "kernel": case.array("init.server.head.fc3.w"),
        "bias": case.array("init.server.head.fc3.b"),
    }
    for played in parity.replay(case, difference, header, states, {"total": "ce"}):
        t = played.number
        difference.array(f"r{t}.server.head.fc3.w", played.server["kernel"])
        difference.array(f"r{t}.server.head.fc3.b", played.server["bias"])
        for k in case.clients:
            state, copy = played.states[k], played.shared[k]
            difference.network(f"r{t}.c{k}.large", Network(state.extractor, copy))
            for shared, point in ((copy, "local"), (played.server, "global")):
                logits = case.client(k).predict(shared, state, case.held())
                difference.array(f"r{t}.eval_{point}.c{k}.logits", logits["global"])
    return difference


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float64(x64):
    for path in oracle.cases("lg_fedavg"):
        compare(path, jnp.float64).check(1e-9, at_least=107)


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float32():
    for path in oracle.cases("lg_fedavg"):
        compare(path, jnp.float32).check(2e-5, at_least=107)


def test_only_the_header_travels():
    tiny = Tiny("lg_fedavg", widths=(WIDTH,))
    _, played = tiny.play(1)[0]
    header_bytes = (WIDTH * 3 + 3) * 4
    np.testing.assert_array_equal(played.bytes_up, [header_bytes] * 3)
    assert played.bytes_down == header_bytes


def test_another_width_is_refused():
    with pytest.raises(
        ValueError, match=r"need feature_dim 4; m5 has 5. Build every model with"
    ):
        Tiny("lg_fedavg").init()
