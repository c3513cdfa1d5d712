"""FML against the oracle, an oracle in NumPy, and what it reduces to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.fml import ClientState
from tests import oracle
from tests.algorithms import parity, tiny
from tests.algorithms.tiny import WIDTH, Tiny
from tests.helpers import assert_trees_close

LOSSES = {
    "personal": "local",
    "meme": "meme",
    "ce_personal": "ce_local",
    "ce_meme": "ce_meme",
    "kl_personal": "kl_local",
    "kl_meme": "kl_meme",
}


def build(setup, options):
    return algorithms.build("fml", setup, alpha=options["alpha"], beta=options["beta"])


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    states = [ClientState(case.network(f"init.c{k}.large")) for k in case.clients]
    server = case.network("init.server.small")
    for played in parity.replay(case, difference, server, states, LOSSES):
        heads = ("personal", "global")
        private = lambda state: state.private
        parity.compare_pairs(case, difference, played, private, played.server, heads)
    return difference


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float64(x64):
    for path in oracle.cases("fml"):
        compare(path, jnp.float64).check(1e-9, at_least=240)


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float32():
    for path in oracle.cases("fml"):
        compare(path, jnp.float32).check(2e-5, at_least=240)


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["uniform", "mean"])
def test_schedules_and_partial_batches_equal_a_numpy_oracle(aggregation, x64):
    ours = Tiny(
        "fml",
        alpha="linear:0.2:0.8",
        beta=lambda round: 1 / (1 + round),
        aggregation=aggregation,
    )
    first = ours.init()
    state = jax.device_get(first)
    meme_of_server = tiny.arrays(state.server)
    personal = [tiny.arrays(s.private) for s in ours.states(state)]
    sizes = np.array(tiny.SIZES if aggregation == "mean" else (1, 1, 1))
    for t, (state, _) in enumerate(ours.play(2, first), start=1):
        a, b = 0.2 + 0.6 * (t - 1) / 2, 1 / (1 + t)  # the run has three rounds
        memes = []
        for k in range(3):
            meme = [p.copy() for p in meme_of_server]
            networks = (personal[k], meme)
            momenta = [[np.zeros_like(p) for p in network] for network in networks]
            for x, y in ours.minibatches(t, k):
                p, q = (tiny.softmax(tiny.forward(net, x)[1]) for net in networks)
                by_logits = (
                    (a * (p - y) + (1 - a) * (p - q)) / len(x),
                    (b * (q - y) + (1 - b) * (q - p)) / len(x),
                )
                gradients = [
                    tiny.backward(network, x, dz)
                    for network, dz in zip(networks, by_logits, strict=True)
                ]
                for parts in zip(networks, gradients, momenta, strict=True):
                    ours.step(*parts)
            memes.append(meme)
        meme_of_server = [
            np.average(parts, axis=0, weights=sizes)
            for parts in zip(*memes, strict=True)
        ]
        tiny.close(state.server, meme_of_server, 1e-12)
        for k, held in enumerate(ours.states(state)):
            tiny.close(held, personal[k], 1e-12)


def test_teachers_are_detached(x64):
    # By a header's bias, the loss of a student changes by the mean over the batch of
    # weight (own - labels) + (1 - weight) (own - teacher's), probabilities all.
    plain = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    ours = Tiny("fml", alpha=0.3, beta=0.9, sgd=plain)
    start = ours.init()
    state = ours.states(start)[0]
    visit = ours.visit(np.array([0, 1, 2, -1]))
    out = ours.algorithm.client(ours.models[0]).update(
        start.server, state, visit, jax.random.key(0)
    )
    x, y = ours.rows(np.array([0, 1, 2]))
    before = {"personal": state.private, "meme": start.server}
    after = {"personal": out.state.private, "meme": out.shared}
    p = {
        name: tiny.softmax(tiny.forward(tiny.arrays(network), x)[1])
        for name, network in before.items()
    }
    for name, teacher, weight in (("personal", "meme", 0.3), ("meme", "personal", 0.9)):
        by_logits = weight * (p[name] - y) + (1 - weight) * (p[name] - p[teacher])
        bias = np.array(before[name].header["bias"])
        moved = bias - ours.sgd["learning_rate"] * by_logits.mean(0)
        np.testing.assert_allclose(after[name].header["bias"], moved, atol=1e-12)


def test_labels_alone_give_standalone_and_fedavg():
    options = {"alpha": 1, "beta": "1", "aggregation": "mean", "widths": (WIDTH,)}
    mutual = Tiny("fml", **options).play(2)[-1][0]
    alone = Tiny("standalone", widths=(WIDTH,)).play(2)[-1][0]
    averaged = Tiny("fedavg", widths=(WIDTH,)).play(2)[-1][0]
    for name, (states, _) in mutual.clients.items():
        assert_trees_close(states.private, alone.clients[name][0].private, 1e-6)
    assert_trees_close(mutual.server, averaged.server, 1e-6)


@pytest.mark.parametrize(
    "value",
    [1.5, -0.1, "half", "linear:0:2", "linear:0", "0:1", True, lambda round: round],
)
def test_a_weight_out_of_range_is_refused(value):
    with pytest.raises(
        ValueError,
        match=r"beta must be in \[0, 1\] in every round; got .* Give a number",
    ):
        Tiny("fml", beta=value)
