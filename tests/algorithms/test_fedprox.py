"""FedProx against one step by hand, an oracle in NumPy, and FedAvg."""

import jax
import numpy as np
import pytest

from fedjax_mrl.algorithms.fedprox import ClientState
from tests.algorithms import tiny
from tests.algorithms.tiny import WIDTH, Tiny
from tests.helpers import assert_trees_close

MU = 0.7


def build(**options):
    return Tiny("fedprox", widths=(WIDTH,), **options)


def test_rounds_equal_a_numpy_oracle(x64):
    ours = build(mu=MU)
    first = ours.init()
    server = tiny.arrays(first.server)
    for t, (state, _) in enumerate(ours.play(2, first), start=1):
        trained = []
        for k in range(3):
            network = [p.copy() for p in server]
            momentum = [np.zeros_like(p) for p in server]
            for x, y in ours.minibatches(t, k):
                p = tiny.softmax(tiny.forward(network, x)[1])
                gradient = tiny.backward(network, x, (p - y) / len(x))
                for g, w, w0 in zip(gradient, network, server, strict=True):
                    g += MU * (w - w0)
                ours.step(network, gradient, momentum)
            trained.append(network)
        shares = np.array(tiny.SIZES) / sum(tiny.SIZES)
        server = [
            sum(share * p for share, p in zip(shares, parts, strict=True))
            for parts in zip(*trained, strict=True)
        ]
        tiny.close(state.server, server, 1e-12)


def test_the_second_step_on_one_batch_pulls_back_by_mu_times_the_first(x64):
    # Plain SGD of rate r. At the start the pull is 0, so the first step is that of
    # FedAvg, d. The second gradient differs from FedAvg's by mu d.
    plain = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    index = np.array([0, 1, 2, -1])
    after = {}
    for mu in (0.0, MU):
        ours = build(mu=mu, sgd=plain)
        client = ours.algorithm.client(ours.models[0])
        start = ours.init().server
        for steps in (1, 2):
            visit = ours.visit(index)
            train = visit.train._replace(index=visit.train.index.repeat(2, axis=0))
            train = train._replace(steps=visit.train.steps * steps)
            out = client.update(
                start, ClientState(), visit._replace(train=train), jax.random.key(0)
            )
            after[mu, steps] = tiny.arrays(out.shared)
            if mu and steps == 2:
                moved = [
                    a - b for a, b in zip(after[mu, 1], tiny.arrays(start), strict=True)
                ]
                squares = sum((d**2).sum() for d in moved)
                proximal = np.array(out.metrics["proximal"])
                np.testing.assert_allclose(proximal, [0, MU / 2 * squares], atol=1e-12)
                total = out.metrics["ce"] + out.metrics["proximal"]
                np.testing.assert_allclose(out.metrics["total"], total, atol=1e-12)
    tiny.close(after[0.0, 1], after[MU, 1], 1e-12)
    pulled = [
        b - ours.sgd["learning_rate"] * MU * d
        for b, d in zip(after[0.0, 2], moved, strict=True)
    ]
    tiny.close(after[MU, 2], pulled, 1e-12)


def test_without_pull_it_is_fedavg():
    averaged = Tiny("fedavg", widths=(WIDTH,)).play(2)[-1][0]
    state = build(mu=0.0).play(2)[-1][0]
    assert_trees_close(state.server, averaged.server, 1e-6)
    for name, (_, shared) in state.clients.items():
        assert_trees_close(shared, averaged.clients[name][1], 1e-6)


def test_a_negative_pull_is_refused():
    with pytest.raises(ValueError, match=r"mu must be at least 0; got -1. Set 0"):
        build(mu=-1)
