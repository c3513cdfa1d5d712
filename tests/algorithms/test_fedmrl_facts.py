"""Facts about FedMRL: which loss moves what, what travels, what stays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms, tree
from fedjax_mrl.algorithms.fedmrl import Trained
from fedjax_mrl.protocol import Batches, Visit
from tests import helpers
from tests.helpers import assert_trees_equal

D1 = 3  # of the toy's 8


def toy(**options):
    return helpers.Toy("fedmrl", same=True, **options)


@functools.cache
def one_step():
    """A step of rate 1 without frills, which is minus the gradient; for any weights."""
    plain = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    made = toy(learning_rate=1.0, **plain)
    table = Batches(jnp.arange(12, dtype=jnp.int32)[None], jnp.int32(1))
    visit = Visit(made.examples, table, table, table, jnp.int32(1))

    @jax.jit
    def step(coarse_weight, fine_weight):
        weights = {"coarse_weight": coarse_weight, "fine_weight": fine_weight}
        method = algorithms.build("fedmrl", made.setup, shared_dim=D1, **weights)
        client = method.client(made.models[0])
        broadcast = method.server.init(jax.random.key(0))
        state = client.init(jax.random.key(1))
        out = client.update(broadcast, state, visit, jax.random.key(2))
        before, after = Trained(broadcast, *state), Trained(out.shared, *out.state)
        return jax.tree.map(jnp.subtract, before, after), out.metrics

    return step


def gradients(coarse_weight, fine_weight):
    return one_step()(jnp.float32(coarse_weight), jnp.float32(fine_weight))


def moved(part):
    return [bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(part)]


def test_the_fine_loss_alone_moves_everything_but_the_global_header():
    found, metrics = gradients(0.0, 1.0)
    assert metrics["total"][0] == metrics["fine"][0] > 0
    assert not any(moved(found.shared.header))
    assert all(moved((found.shared.extractor, found.private, found.projector)))
    # All outputs of the projector, also the first ones.
    assert (found.projector["bias"] != 0).all()


def test_the_coarse_loss_alone_leaves_the_local_header_and_the_later_outputs():
    found, metrics = gradients(1.0, 0.0)
    assert metrics["total"][0] == metrics["coarse"][0] > 0
    assert not any(moved(found.private.header))
    kernel, bias = found.projector["kernel"], found.projector["bias"]
    assert not any(moved((kernel[:, D1:], bias[D1:])))
    assert (bias[:D1] != 0).all() and all(moved(kernel[:, :D1]))
    assert all(moved((found.shared, found.private.extractor)))


def test_later_projector_outputs_have_the_gradient_of_the_fine_loss_alone():
    both, fine = gradients(1.0, 1.0)[0], gradients(0.0, 1.0)[0]
    for part in ("kernel", "bias"):
        np.testing.assert_allclose(
            both.projector[part][..., D1:], fine.projector[part][..., D1:], atol=1e-6
        )
    np.testing.assert_allclose(
        both.private.header["kernel"], fine.private.header["kernel"], atol=1e-6
    )


def test_both_losses_add_up():
    parts = gradients(1.0, 0.0)[0], gradients(0.0, 1.0)[0]
    helpers.assert_trees_close(
        gradients(1.0, 1.0)[0], jax.tree.map(jnp.add, *parts), atol=1e-6
    )


def test_a_shared_representation_wider_than_the_private_one_is_refused():
    made = toy(shared_dim=8)  # as wide is allowed
    made.algorithm.client(made.models[0])
    wide = algorithms.build("fedmrl", made.setup, shared_dim=9)
    message = "shared_dim must be at most 8, the width of a; got 9. Lower --shared-dim"
    with pytest.raises(ValueError, match=message):
        wide.client(made.models[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared_dim": 0}, "shared_dim must be at least 1; got 0"),
        ({"readout": "half"}, "one of nested, full, local; got 'half'"),
        ({"aggregation": "sum"}, "mean, uniform, last_client; got 'sum'"),
    ],
)
def test_a_hyper_parameter_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        algorithms.build("fedmrl", toy().setup, **options)


@functools.cache
def after_one_round(readout, shared_dim):
    """A toy, its compiled round, and the states around the first one."""
    made = toy(readout=readout, shared_dim=shared_dim, cohort_size=3, epochs=1)
    before, play = made.init(), made.make()
    state, played = play(helpers.copy(before))
    return made, play, before, state, played


# The extractor: 256 pixels to 6 to d1; the header, if it travels, to 4 classes.
EXTRACTOR = (256 + 1) * 6 + (6 + 1) * D1


@pytest.mark.parametrize(
    ("readout", "heads", "numbers"),
    [
        (
            "nested",
            ("mix_large", "mix_small", "single_small", "single_large"),
            EXTRACTOR + (D1 + 1) * 4,
        ),
        ("full", ("mix_large", "mix_small", "single_large"), EXTRACTOR + (8 + 1) * 4),
        ("local", ("mix_large", "single_large"), EXTRACTOR),
    ],
)
def test_a_readout_has_its_heads_and_sends_what_it_shares(readout, heads, numbers):
    method = toy(readout=readout).algorithm
    assert method.heads == heads
    server = jax.eval_shape(method.server.init, jax.random.key(0))
    assert tree.num_parameters(method.server.broadcast(server)) == numbers


@pytest.mark.parametrize(
    "readout", ["full", pytest.param("local", marks=pytest.mark.slow)]
)
def test_an_ablation_trains_all_that_it_has(readout):
    made, _, before, state, played = after_one_round(readout, D1)
    assert int(played.bytes_down) == tree.num_bytes(before.server)
    assert (played.bytes_up == int(played.bytes_down)).all()
    assert np.isfinite(played.metrics["total"]).all()
    assert ("coarse" in played.metrics) == (readout == "full")
    row = int(played.cohort[0])
    old, new = (
        (s.server, jax.tree.map(lambda leaf: leaf[row], s.clients["a"]))
        for s in (before, state)
    )
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), old, new)))
    scores = made.evaluate()(state)
    assert scores.correct.shape == (2, len(made.algorithm.heads), 8)


def test_with_the_full_readout_all_clients_need_one_width():
    made = toy(readout="full")
    narrow = made.small("narrow", 6, width=7)
    with pytest.raises(ValueError, match="need feature_dim 8; narrow has 7"):
        made.algorithm.client(narrow)


def test_the_headers_of_a_homogeneous_setting_are_networks_of_their_own():
    # As wide as the private ones: then both headers have one shape.
    _, _, _, state, played = after_one_round("nested", 8)
    private, common = state.clients["a"][0].private.header, state.clients["a"][1].header
    for client in played.cohort:
        for name in ("kernel", "bias"):
            assert private[name].shape == common[name].shape
            assert not np.allclose(private[name][client], common[name][client])
            assert not np.allclose(private[name][client], state.server.header[name])
    # No two arrays of the state lie at the same place.
    leaves = jax.tree.leaves((state.server, state.clients))
    places = {leaf.unsafe_buffer_pointer() for leaf in leaves}
    assert len(places) == len(leaves)


def test_the_projector_changes_and_the_next_visit_starts_from_it():
    _, play, before, after, played = after_one_round("nested", 8)
    client = int(played.cohort[0])
    absent = next(c for c in range(8) if c not in played.cohort)
    old, new = (state.clients["a"][0].projector for state in (before, after))
    for name in ("kernel", "bias"):
        assert (old[name][client] != new[name][client]).all()
        np.testing.assert_array_equal(old[name][absent], new[name][absent])
    # A second visit with the first one's projector, and with a fresh one.
    trained, shared = after.clients["a"]
    ends = []
    for states in (trained, trained._replace(projector=old)):
        clients = {"a": (states, shared)}
        state, again = play(helpers.copy(after._replace(clients=clients)))
        ends.append((state.clients["a"][0].projector["kernel"], again.cohort))
    visited = [int(c) for c in ends[0][1] if c in played.cohort]
    assert visited, "no client takes part in both rounds"
    for c in visited:
        assert not np.allclose(ends[0][0][c], ends[1][0][c])
        # It went on from where it was, and not from the start.
        gap = [float(abs(ends[0][0][c] - p["kernel"][c]).mean()) for p in (new, old)]
        assert gap[0] < gap[1]


def test_predictions_use_the_trained_projector():
    made, _, before, after, played = after_one_round("nested", 8)
    client = int(played.cohort[0])
    row = lambda states: jax.tree.map(lambda leaf: leaf[client], states)
    state, shared = row(after.clients["a"])
    stale = state._replace(projector=row(before.clients["a"][0].projector))
    predict = jax.jit(made.algorithm.client(made.models[0]).predict)
    x = made.setup.prepare.test(made.examples.x, jnp.arange(4))
    ours, others = predict(shared, state, x), predict(shared, stale, x)
    for head in ("mix_large", "mix_small"):
        assert not np.allclose(ours[head], others[head])
    for head in ("single_small", "single_large"):  # these do without
        assert_trees_equal(ours[head], others[head])
