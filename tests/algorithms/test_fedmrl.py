"""FedMRL against the oracle, and the facts about its gradients."""

import jax
import jax.numpy as jnp
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.learning.fusion import ClientState
from tests import oracle

OPTIMISED = True  # in float32 compared as users run it


@pytest.fixture
def plain():
    """Compiles fast: in float64 the equations are compared, not the compiler."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def build(setup, options):
    return algorithms.build(
        "fedmrl",
        setup,
        shared_dim=options["d1"],
        coarse_weight=options["m_lc"],
        fine_weight=options["m_hf"],
    )


def start(case):
    projector = lambda k: {
        "kernel": case.array(f"init.c{k}.proj.w"),
        "bias": case.array(f"init.c{k}.proj.b"),
    }
    states = [
        ClientState(case.network(f"init.c{k}.large"), projector(k))
        for k in case.clients
    ]
    return case.network("init.server.small"), states


def compare_state(difference, prefix, state, shared):
    difference.network(f"{prefix}.large", state.private)
    difference.array(f"{prefix}.proj.w", state.projector["kernel"])
    difference.array(f"{prefix}.proj.b", state.projector["bias"])
    difference.network(f"{prefix}.small", shared)


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    server, states = start(case)
    seen = case.play(server, states)
    local = server
    for round, state in enumerate(seen, start=1):
        present = case.participants(round)
        for k in present:
            out = case.update(round, k, server, states[k])
            for ours, theirs in (("total", "total"), ("coarse", "small")):
                key = f"r{round}.c{k}.loss.{theirs}"
                difference.array(key, out.metrics[ours])
            difference.array(f"r{round}.c{k}.loss.large", out.metrics["fine"])
            states[k] = out.state
        server = state.server
        difference.network(f"r{round}.server.small", server)
        for k in case.clients:
            private, local = case.of_client(state.clients, k)
            if k in present:
                compare_state(difference, f"r{round}.c{k}", private, local)
            for point, shared in (("local", local), ("global", server)):
                if k not in present and point == "local":
                    continue
                logits = case.client(k).predict(shared, private, case.held())
                for head, value in logits.items():
                    difference.array(f"r{round}.eval_{point}.c{k}.{head}", value)
    return difference


@pytest.mark.parametrize(
    "name", ["fedmrl", pytest.param("fedmrl_clip", marks=pytest.mark.slow)]
)
def test_two_rounds_equal_the_oracle_in_float64(name, plain, x64):
    for path in oracle.cases(name):
        compare(path, jnp.float64).check(1e-9, at_least=200)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedmrl", "fedmrl_clip"])
def test_two_rounds_equal_the_oracle_in_float32(name):
    for path in oracle.cases(name):
        compare(path, jnp.float32).check(2e-5, at_least=200)
