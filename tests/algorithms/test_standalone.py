"""Standalone training against the oracle."""

import jax.numpy as jnp
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.standalone import Trained
from tests import oracle
from tests.algorithms import parity


def build(setup, options):
    return algorithms.build("standalone", setup)


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    states = [Trained(case.network(f"init.c{k}.large")) for k in case.clients]
    for played in parity.replay(case, difference, (), states, {"total": "ce"}):
        t = played.number
        for k in case.clients:
            state = played.states[k]
            difference.network(f"r{t}.c{k}.large", state.private)
            logits = case.client(k).predict((), state, case.held())
            difference.array(f"r{t}.eval.c{k}.logits", logits["local"])
    return difference


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float64(x64):
    for path in oracle.cases("standalone"):
        compare(path, jnp.float64).check(1e-9, at_least=95)


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float32():
    for path in oracle.cases("standalone"):
        compare(path, jnp.float32).check(2e-5, at_least=95)
