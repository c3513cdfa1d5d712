"""FedKD against the oracle; its compression against the SVD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.fedkd import ClientState
from fedjax_mrl.learning import compression, schedules
from fedjax_mrl.learning.compression import ServerState
from tests import oracle
from tests.algorithms import parity, tiny
from tests.algorithms.tiny import WIDTH, Tiny
from tests.helpers import assert_trees_close

LOSSES = {
    "mentor": "mentor",
    "mentee": "mentee",
    "ce_mentor": "ce_mentor",
    "ce_mentee": "ce_mentee",
    "kl_mentor": "kl_mentor",
    "kl_mentee": "kl_mentee",
    "hidden": "mse",
}
PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}


def build(setup, options):
    return algorithms.build(
        "fedkd",
        setup,
        energy_start=options["energy_start"],
        energy_end=options["energy_end"],
    )


def factor_bytes(data, prefix, shapes, itemsize):
    """What the oracle's ranks cost."""
    total = 0
    for name in oracle.PARTS:
        shape = shapes[name]
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        rank = int(data[f"{prefix}.rank.{name}.w"])
        total += min(rank * (rows + 1 + columns), rows * columns) + columns
    return total * itemsize


def compare_ranks(case, prefix, ranks):
    for name in oracle.PARTS:
        part = ranks.header if name == "fc3" else ranks.extractor[name]
        expected = case.data[f"{prefix}.rank.{name}.w"]
        assert int(part["kernel"]) == expected, (prefix, name)


def compare(path, dtype):
    case = oracle.Case(path, build, dtype)
    difference = oracle.Difference(case)
    states = [
        ClientState(case.network(f"init.c{k}.large"), case.array(f"init.c{k}.Wh.w"))
        for k in case.clients
    ]
    network = case.network("init.server.small")
    shapes = {
        name: (network.header if name == "fc3" else network.extractor[name])[
            "kernel"
        ].shape
        for name in oracle.PARTS
    }
    cost = lambda prefix: factor_bytes(
        case.data, prefix, shapes, jnp.dtype(dtype).itemsize
    )
    compress = jax.jit(compression.compress)
    server = ServerState(network, compression.full_ranks(network))
    for played in parity.replay(case, difference, server, states, LOSSES):
        t, heads = played.number, ("mentor", "mentee")
        private = lambda state: state.private
        parity.compare_pairs(
            case, difference, played, private, played.server.shared, heads
        )
        compare_ranks(case, f"r{t}.server", played.server.ranks)
        sent = case.algorithm.server.broadcast_bytes(played.server)
        assert sent == cost(f"r{t}.server")
        energy = schedules.growing(0.95, 0.98, jnp.int32(t), 2)
        difference.array(f"r{t}.energy", energy)
        for k in case.clients:
            difference.array(f"r{t}.c{k}.Wh.w", played.states[k].projector)
        for k, out in played.updates.items():
            prefix = f"r{t}.c{k}"
            difference.network(f"{prefix}.update", out.upload)
            assert out.upload_bytes == cost(prefix)
            moved = jax.tree.map(jnp.subtract, out.shared, played.broadcast)
            compare_ranks(case, prefix, compress(moved, energy).ranks)
    return difference


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float64(x64):
    for path in oracle.cases("fedkd"):
        compare(path, jnp.float64).check(1e-9, at_least=327)


@pytest.mark.slow
def test_two_rounds_equal_the_oracle_in_float32():
    for path in oracle.cases("fedkd"):
        compare(path, jnp.float32).check(2e-5, at_least=327)


def truncated(matrix, energy):
    """The definition: fewest singular values, largest first, with the energy."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    rank = 1
    while (s[:rank] ** 2).sum() < energy * (s**2).sum():
        rank += 1
    return (u[:, :rank] * s[:rank]) @ v[:rank], rank


def some_update():
    draw = np.random.default_rng(1)
    decay = lambda rows, columns: (
        draw.normal(size=(rows, columns)) @ np.diag(0.7 ** np.arange(columns))
    )
    return {
        "tall": decay(30, 7),
        "wide": decay(6, 20),
        "filters": decay(3 * 3 * 2, 5).reshape(3, 3, 2, 5),
        "zeros": np.zeros((4, 3)),
        "bias": draw.normal(size=5),
    }


@pytest.mark.parametrize("energy", [0.3, 0.8, 0.95, 1.0])
def test_compression_is_the_truncated_svd(energy, x64):
    update = some_update()
    found = jax.jit(compression.compress)(update, jnp.asarray(energy))
    for name, value in update.items():
        rank = 0
        if name not in ("bias", "zeros"):
            expected, rank = truncated(value.reshape(-1, value.shape[-1]), energy)
            assert energy == 1 or rank < min(expected.shape)
            value = expected.reshape(value.shape)
        np.testing.assert_allclose(found.values[name], value, atol=1e-12)
        if energy < 1 and name != "zeros":
            assert found.ranks[name] == rank


def test_several_clients_are_compressed_at_once():
    draw = np.random.default_rng(2)
    updates = draw.normal(size=(3, 12, 5)) * 0.6 ** np.arange(5)
    compress = jax.jit(jax.vmap(compression.compress, in_axes=(0, None)))
    found = compress({"w": jnp.asarray(updates, jnp.float32)}, jnp.float32(0.9))
    for i, update in enumerate(updates):
        expected, rank = truncated(update, 0.9)
        np.testing.assert_allclose(found.values["w"][i], expected, atol=1e-5)
        assert found.ranks["w"][i] == rank


def test_bytes_are_those_of_the_factors_or_of_the_matrix_if_it_is_smaller():
    shapes = {
        "low": jax.ShapeDtypeStruct((10, 20), jnp.float32),
        "high": jax.ShapeDtypeStruct((5, 2, 20), jnp.float32),
        "bias": jax.ShapeDtypeStruct((7,), jnp.float32),
    }
    ranks = {"low": jnp.int32(2), "high": jnp.int32(8), "bias": jnp.int32(0)}
    # 2 (10 + 1 + 20) = 62 numbers; 8 * 31 = 248 > 200; 7.
    assert compression.num_bytes(shapes, ranks) == 4 * (62 + 200 + 7)
    full = compression.full_ranks(shapes)
    assert full == {"low": 10, "high": 10, "bias": 0}
    assert compression.num_bytes(shapes, full) == 4 * (200 + 200 + 7)


@pytest.mark.slow
def test_full_energy_sends_updates_as_they_are(x64):
    ours = Tiny("fedkd", widths=(WIDTH,), energy_start=1, energy_end=1)
    (state, played), *_ = ours.play(1)
    copies = [ours.of_client(state, k)[1] for k in range(3)]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *copies)
    assert_trees_close(state.server.shared, mean, 1e-12)
    np.testing.assert_array_equal(played.bytes_up, [39 * 8] * 3)
    assert played.bytes_down == 39 * 8


def test_the_first_broadcast_is_the_whole_model_and_the_next_the_compressed_update():
    ours = Tiny("fedkd", widths=(WIDTH,), energy_start=0.5, energy_end=0.5)
    (first, played), (_, again) = ours.play(2)
    assert played.bytes_down == 39 * 4
    assert again.bytes_down == compression.num_bytes(*first.server)
    # Rank 1 in both: (5 + 1 + 4) + 4 and (4 + 1 + 3) + 3 numbers.
    assert first.server.ranks.extractor["kernel"] == 1
    assert first.server.ranks.header["kernel"] == 1
    assert again.bytes_down == 4 * (10 + 4 + 8 + 3)


def one_step(detach):
    ours = Tiny("fedkd", detach=detach, sgd=PLAIN)
    start = ours.init()
    state = ours.states(start)[1]  # a wider mentor, so that W is not square
    visit = ours.visit(np.array([0, 1, 2, -1]))
    out = ours.algorithm.client(ours.models[1]).update(
        start.server.shared, state, visit, jax.random.key(0)
    )
    return ours, start.server.shared, state, out


@pytest.mark.parametrize("detach", [False, True])
def test_one_step_follows_the_hand_made_gradient(detach, x64):
    ours, shared, state, out = one_step(detach)
    x, y = ours.rows(np.array([0, 1, 2]))
    mentor, mentee = tiny.arrays(state.private), tiny.arrays(shared)
    w = np.array(state.projector)
    (r, z), (s, u) = tiny.forward(mentor, x), tiny.forward(mentee, x)
    p, q = tiny.softmax(z), tiny.softmax(u)
    n, ce = len(x), lambda p: -(y * np.log(p)).sum(1).mean()
    kl = lambda p, q: (p * np.log(p / q)).sum(1).mean()
    c = ce(p) + ce(q)
    gap = r - s @ w
    mse = (gap**2).mean()
    # By the logits and the representations, and by W, of which both losses have one.
    dz, du = (p - y) + (p - q) / c, (q - y) + (q - p) / c
    dr, ds = 2 * gap / gap.size / c, -2 * gap @ w.T / gap.size / c
    dw = 2 * (-2 * s.T @ gap / gap.size / c)
    if not detach:
        # Each is also the other's teacher, and part of the divisor.
        teaches = lambda p, q: (
            p * (np.log(p / q) - (p * np.log(p / q)).sum(1, keepdims=True))
        )
        distilled = kl(q, p) + kl(p, q) + 2 * mse
        dz += teaches(p, q) / c - distilled / c**2 * (p - y)
        du += teaches(q, p) / c - distilled / c**2 * (q - y)
        dr, ds = 2 * dr, 2 * ds
    rate = ours.sgd["learning_rate"]
    for network, found, parts in (
        (mentor, out.state.private, (dz / n, dr)),
        (mentee, out.shared, (du / n, ds)),
    ):
        ours.step(
            network,
            tiny.backward(network, x, *parts),
            [np.zeros_like(p) for p in network],
        )
        tiny.close(found, network, 1e-12)
    np.testing.assert_allclose(out.state.projector, w - rate * dw, atol=1e-12)
    np.testing.assert_allclose(out.metrics["hidden"], [mse], atol=1e-12)


def test_a_perfect_fit_does_not_divide_by_zero():
    ours = Tiny("fedkd", sgd=PLAIN)
    start = ours.init()
    state = ours.states(start)[0]
    sure = lambda network: network._replace(
        header={**network.header, "bias": jnp.array([0.0, 200.0, 0.0])}
    )
    index = np.flatnonzero(ours.y == 1)[:2]
    out = ours.algorithm.client(ours.models[0]).update(
        sure(start.server.shared),
        state._replace(private=sure(state.private)),
        ours.visit(index),
        jax.random.key(0),
    )
    assert out.metrics["ce_mentor"] == out.metrics["ce_mentee"] == 0
    for leaf in jax.tree.leaves((out.state, out.shared, out.metrics)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("name", ["energy_start", "energy_end"])
@pytest.mark.parametrize("energy", [0, 1.1])
def test_an_energy_out_of_range_is_refused(name, energy):
    with pytest.raises(
        ValueError, match=rf"{name} must be above 0 and at most 1; got {energy}. Set 1"
    ):
        Tiny("fedkd", **{name: energy})
