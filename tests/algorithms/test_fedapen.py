"""FedAPEN against the oracle, and the learning of its ensemble weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.fedapen import ClientState
from tests import oracle
from tests.algorithms import parity, tiny
from tests.algorithms.tiny import WIDTH, Tiny

LOSSES = {
    "private": "private",
    "shared": "shared",
    "kl_private": "kl_private",
    "kl_shared": "kl_shared",
    "ce_ensemble": "ce_ensemble",
}


def build(setup, options):
    return algorithms.build(
        "fedapen",
        setup,
        adapt_rate=options["lam_lr"],
        adapt_steps=options["lam_steps"],
    )


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    states = [
        ClientState(case.network(f"init.c{k}.large"), case.array("cfg.lam_init"))
        for k in case.clients
    ]
    server = case.network("init.server.small")
    for played in parity.replay(case, difference, server, states, LOSSES):
        t, heads = played.number, ("personal", "global")
        private = lambda state: state.private
        parity.compare_pairs(case, difference, played, private, played.server, heads)
        for k in played.present:
            difference.array(f"r{t}.c{k}.lam", played.states[k].weight)
        for k in case.clients:
            logits = case.client(k).predict(
                played.server, played.states[k], case.held()
            )
            difference.array(f"r{t}.eval_global.c{k}.ensemble", logits["ensemble"])
    return difference


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float64(x64):
    for path in oracle.cases("fedapen"):
        compare(path, jnp.float64).check(1e-9, at_least=248)


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float32():
    for path in oracle.cases("fedapen"):
        compare(path, jnp.float32).check(2e-5, at_least=248)


def test_it_keeps_a_twentieth_out_of_training():
    assert Tiny("fedapen").algorithm.holdout == 0.05


@pytest.mark.slow
def test_the_weight_is_learnt_on_the_mean_of_all_held_out_examples(x64):
    # 5, 0 and 2 examples in batches of 2: a partial batch, no batch, one batch.
    ours = Tiny("fedapen", holdout=(5, 0, 2), adapt_rate=0.2, adapt_steps=3)
    before = [0.5, 0.5, 0.5]
    for state, _ in ours.play(2):
        for k, held in enumerate(ours.states(state)):
            weight = before[k]
            if ours.holdout[k].size:
                x, y = ours.rows(ours.holdout[k])
                own, other = (
                    tiny.forward(tiny.arrays(network), x)[1]
                    for network in (held.private, state.server)
                )
                for _ in range(3):
                    both = weight * own + (1 - weight) * other
                    slope = ((tiny.softmax(both) - y) * (own - other)).sum(1).mean()
                    weight = min(max(weight - 0.2 * slope, 0.0), 1.0)
            np.testing.assert_allclose(held.weight, weight, atol=1e-12)
            before[k] = weight
    assert before[1] == 0.5
    assert all(0 < weight < 1 and weight != 0.5 for weight in before[::2])


def test_the_weight_stays_between_zero_and_one():
    ours = Tiny("fedapen", widths=(WIDTH,), holdout=(2, 2, 2), adapt_rate=1e4)
    weights = [s.weight for s in ours.states(ours.play(1)[0][0])]
    assert all(weight in (0, 1) for weight in weights)


def test_private_and_shared_model_learn_from_their_ensemble_by_its_weight(x64):
    # One step of plain SGD. The other side of the ensemble and both teachers are
    # constants, so by its own logits a model's loss changes by the mean of
    # (own - labels) + (own - teacher's) + share (ensemble's - labels).
    plain = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    ours = Tiny("fedapen", sgd=plain)
    start = ours.init()
    state = ours.states(start)[0]._replace(weight=jnp.asarray(0.8))
    visit = ours.visit(np.array([4, -1, 5, 6]))
    out = ours.algorithm.client(ours.models[0]).update(
        start.server, state, visit, jax.random.key(0)
    )
    assert out.state.weight == 0.8
    x, y = ours.rows(np.array([4, 5, 6]))
    private, shared = tiny.arrays(state.private), tiny.arrays(start.server)
    z, w = (tiny.forward(network, x)[1] for network in (private, shared))
    p, q, both = tiny.softmax(z), tiny.softmax(w), tiny.softmax(0.8 * z + 0.2 * w)
    for network, found, by_logits in (
        (private, out.state.private, (p - y) + (p - q) + 0.8 * (both - y)),
        (shared, out.shared, (q - y) + (q - p) + 0.2 * (both - y)),
    ):
        gradient = tiny.backward(network, x, by_logits / 3)
        momentum = [np.zeros_like(p) for p in network]
        ours.step(network, gradient, momentum)
        tiny.close(found, network, 1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt_rate": -0.1}, "adapt_rate must be at least 0; got -0.1. Set 0"),
        ({"adapt_steps": -1}, "adapt_steps must be a whole number, at least 0; got -1"),
        ({"adapt_steps": 2.5}, "adapt_steps must be a whole number, at least 0; got 2"),
    ],
)
def test_a_value_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Tiny("fedapen", **options)
