"""Who takes part, in which order they work, and what the server makes of it.

Most tests run a method without networks, whose numbers say what happened: a client
counts its visits, and uploads its visit's examples.
"""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms, models
from fedjax_mrl.config import RunConfig
from fedjax_mrl.data import images
from fedjax_mrl.federation import Federation
from fedjax_mrl.learning import optimizers, servers
from fedjax_mrl.protocol import (
    Algorithm,
    Client,
    ClientUpdate,
    Cohort,
    Examples,
    Model,
    Server,
    Setup,
)
from fedjax_mrl.simulation import batches, initialization, mapping, population, rounds
from fedjax_mrl.simulation import cohorts as turns
from fedjax_mrl.simulation.settings import RoundConfig
from tests import helpers
from tests.helpers import assert_trees_close, assert_trees_equal

# --- who takes part -------------------------------------------------------------


def test_all_clients_and_all_pairs_are_equally_likely_to_be_drawn():
    n, k, draws = 10, 3, 4000
    cohorts = [
        turns.cohort(5, round, num_clients=n, cohort_size=k) for round in range(draws)
    ]
    drawn = np.zeros((draws, n), int)
    drawn[np.arange(draws)[:, None], cohorts] = 1
    assert (drawn.sum(1) == k).all()  # without replacement
    assert all((np.diff(cohort) > 0).all() for cohort in cohorts)
    together = drawn.T @ drawn
    singles, pairs = k / n, k * (k - 1) / (n * (n - 1))
    for count, p in (
        (np.diag(together), singles),
        (together[np.triu_indices(n, 1)], pairs),
    ):
        # Five standard deviations of a binomial variable.
        assert (abs(count - draws * p) < 5 * np.sqrt(draws * p * (1 - p))).all()


def test_a_cohort_is_a_function_of_seed_and_round():
    draw = functools.partial(turns.cohort, num_clients=100, cohort_size=10)
    np.testing.assert_array_equal(draw(0, 7), draw(0, 7))
    others = [draw(0, 8), draw(1, 7), draw(7, 0)]
    assert not any(np.array_equal(draw(0, 7), other) for other in others)
    everyone = turns.cohort(0, 1, num_clients=6, cohort_size=6)
    np.testing.assert_array_equal(everyone, np.arange(6))


def test_each_local_epoch_is_a_permutation_with_a_partial_last_batch():
    positions = [np.array([3, 1]), np.array([10, 20, 30, 40, 50, 60, 70])]
    options = {"seed": 0, "epochs": 3, "batch_size": 4}
    index = batches.local_epochs(positions, 5, 1, **options)
    assert index.shape == (3 * 2, 4) and index.dtype == np.int32
    epochs = index.reshape(3, 8)
    assert (epochs[:, 7:] == -1).all()
    for epoch in epochs:
        assert sorted(epoch[:7]) == [10, 20, 30, 40, 50, 60, 70]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    small = batches.local_epochs(positions, 5, 0, **options)
    assert small.shape == (3, 4) and (np.sort(small)[:, 2:] == [1, 3]).all()


def test_the_order_of_examples_depends_on_seed_round_and_client_alone():
    examples = np.arange(30, dtype=np.int32)

    def order(round, client, seed, others=30):
        positions = [np.arange(others)] * 3
        positions[client] = examples
        return batches.local_epochs(
            positions, round, client, seed=seed, epochs=1, batch_size=8
        )

    same = order(2, 1, 0)
    np.testing.assert_array_equal(same, order(2, 1, 0, others=5))
    for other in (order(3, 1, 0), order(2, 2, 0), order(2, 1, 1)):
        assert not np.array_equal(same, other)


def test_a_table_in_order_has_every_example_once():
    parts = [np.array([5, 6, 7]), np.array([], np.int32), np.arange(8, 12)]
    index, steps = batches.in_order(parts, 2)
    assert index.shape == (3, 2, 2) and steps.tolist() == [2, 0, 2]
    for rows, part in zip(index, parts, strict=True):
        np.testing.assert_array_equal(rows[rows >= 0], part)
    assert batches.num_steps(9, 4, epochs=3) == 9


def model(name, count=1.0):
    """A model that is only a number."""
    return Model(
        name=name,
        init=lambda key: jnp.float32(count) + jax.random.uniform(key),
        features=None,
        head=None,
        feature_dim=1,
        num_classes=2,
    )


def test_client_k_gets_the_model_k_mod_the_number_of_models():
    names = ["a", "b", "a", "c"]
    groups = population.assign(10, [model(name) for name in names])
    assert [group.name for group in groups] == ["a", "b", "c"]
    owner = {int(c): group.name for group in groups for c in group.clients}
    assert owner == {k: names[k % 4] for k in range(10)}
    assert all((np.diff(group.clients) > 0).all() for group in groups)
    assert [group.model.name for group in groups] == ["a", "b", "c"]
    # A model for which there is no client has no group.
    assert [g.name for g in population.assign(2, groups and [model("x")] * 3)] == ["x"]
    assert len(population.assign(1, [model("x"), model("y")])) == 1


@pytest.mark.parametrize(("num_clients", "names"), [(0, ["a"]), (3, [])])
def test_a_federation_of_nobody_is_refused(num_clients, names):
    message = f"at least one .*got {num_clients} clients and {len(names)} models"
    with pytest.raises(ValueError, match=message):
        population.assign(num_clients, [model(name) for name in names])


@pytest.mark.parametrize("participation", [0.0, 0.09])
def test_a_participation_that_selects_nobody_is_refused(participation):
    message = r"--participation 0.* of 5 clients selects nobody.* 0\.2 or more"
    with pytest.raises(ValueError, match=message):
        Federation(num_clients=5, participation=participation)


@pytest.mark.parametrize("participation", [-0.1, 1.1])
def test_a_participation_that_is_no_fraction_is_refused(participation):
    message = f"--participation must be at least 0 and at most 1; got {participation}"
    with pytest.raises(ValueError, match=message):
        RunConfig(participation=participation)
    assert RunConfig(num_clients=50, participation=0.2).cohort_size == 10


# --- one program for several members ---------------------------------------------


@functools.cache
def doubling(chunk):
    """Adds the member to its row; reports row and member."""

    def one(state, member):
        return {"x": state["x"] + member}, {"sum": state["x"] * member, "m": member}

    return jax.jit(
        lambda states, members, count: mapping.over_members(
            one, states, members, count, chunk
        )
    )


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6])
def test_the_first_members_are_computed_and_padding_writes_nothing(count, chunk):
    start = np.arange(6, dtype=np.float32)
    members = np.array([10, 20, 30, 40, 50, 60], np.float32)
    states, outputs = doubling(chunk)({"x": jnp.asarray(start)}, members, count)
    expected = start.copy()
    expected[:count] += members[:count]
    np.testing.assert_array_equal(states["x"], expected)
    np.testing.assert_array_equal(outputs["m"][:count], members[:count])
    np.testing.assert_array_equal(outputs["sum"][:count], (start * members)[:count])


# --- the round, with a method that only counts ------------------------------------


class Counted(NamedTuple):
    """What a client of `counting` keeps."""

    visits: Any
    start: Any


def counting(fail=None, finish=False):
    """A method without networks.

    The server adds up weights, and uploads by weight; a client counts visits and
    uploads its number of examples. `fail` is the client id whose state turns NaN.
    """

    def update(server, uploads, cohort):
        return {
            "round": cohort.round,
            "weight": cohort.weights.sum(),
            "sum": (uploads["examples"] * cohort.weights).sum(),
        }

    def client(model):
        def visit_of(broadcast, state, visit, key):
            examples = (visit.train.index >= 0).sum().astype(jnp.float32)
            sweep = (visit.sweep.index >= 0).sum().astype(jnp.float32)
            visits = state.visits + 1
            if fail is not None:
                own = jnp.where(visit.train.index >= 0, visit.train.index, 10**6).min()
                visits = jnp.where(own == fail, jnp.nan, visits)
            trace = jnp.zeros(visit.train.index.shape[0]).at[0].set(2.0 * sweep)
            return ClientUpdate(
                Counted(visits, state.start),
                broadcast,
                {"examples": examples},
                {"total": trace},
            )

        return Client(
            init=lambda key: Counted(jnp.float32(0), model.init(key)),
            update=visit_of,
            predict=None,
            finish=(
                (
                    lambda shared, state, visit, key: state._replace(
                        visits=state.visits + 100 * shared["round"].astype(jnp.float32)
                    )
                )
                if finish
                else None
            ),
        )

    start = {"round": jnp.int32(0), "weight": jnp.float32(0), "sum": jnp.float32(0)}
    server = Server(
        init=lambda key: start,
        broadcast=lambda state: {"round": state["round"]},
        update=update,
    )
    return Algorithm(server, client, heads=())


SIZES = (5, 2, 9, 4, 3, 7)


def federation(algorithm, *, sample=None, **settings):
    """Six clients of two models; examples of client k start at 100 k."""
    groups = population.assign(6, [model("a"), model("b", 10.0)])
    train = [np.arange(s, dtype=np.int32) + 100 * k for k, s in enumerate(SIZES)]
    options = {"seed": 0, "cohort_size": 4, "epochs": 2, "batch_size": 4} | settings
    config = RoundConfig(**options)
    examples = Examples(jnp.zeros((600, 1)), jnp.zeros(600, jnp.int32))
    play = rounds.make(algorithm, groups, examples, train, config, sample=sample)
    return initialization.init(algorithm, groups, config), play, groups


def by_client(state, groups, field):
    found = np.zeros(6)
    for group in groups:
        found[group.clients] = getattr(state.clients[group.name][0], field)
    return found


@pytest.mark.parametrize("chunk", [1, 0])
def test_a_round_reaches_its_participants_and_nobody_else(chunk):
    state, play, groups = federation(counting(), chunk=chunk)
    visits = np.zeros(6)
    for number in (1, 2, 3):
        cohort = turns.cohort(0, number, num_clients=6, cohort_size=4)
        state, played = play(state)
        np.testing.assert_array_equal(played.cohort, cohort)
        visits[cohort] += 1
        np.testing.assert_array_equal(by_client(state, groups, "visits"), visits)
        sizes = np.array(SIZES, float)[cohort]
        # Two epochs of the training examples, weighted by the number of them.
        assert state.round == int(state.server["round"]) == number
        assert float(state.server["weight"]) == sizes.sum()
        assert float(state.server["sum"]) == (2 * sizes * sizes).sum()
        # Metrics in cohort order: a mean over the client's own steps.
        steps = 2 * np.ceil(sizes / 4)
        np.testing.assert_allclose(played.metrics["total"], 2 * sizes / steps)
        # One float up, one integer down.
        assert played.bytes_up.tolist() == [4.0] * 4 and int(played.bytes_down) == 4


@pytest.mark.parametrize("chunk", [1, 2, 0])
def test_a_group_with_unusually_many_members_is_computed_in_waves(chunk):
    """Clients 0, 2, 4 are a group; a cohort of three usually has two of them."""
    cohorts = {1: [0, 2, 4], 2: [1, 3, 5], 3: [4, 5]}
    sample = lambda round: np.array(cohorts[round])
    found = []
    for size in (3, 6):  # places for two members, and for all three
        state, play, groups = federation(
            counting(), sample=sample, cohort_size=size, chunk=chunk
        )
        for _ in cohorts:
            state, played = play(state)
        found.append((state.server, by_client(state, groups, "visits")))
        assert played.fetch().metrics["total"].tolist() == [6 / 2, 14 / 4]
    assert_trees_equal(*found)
    np.testing.assert_array_equal(found[0][1], [1, 1, 1, 1, 2, 2])


def test_a_client_holds_the_broadcast_of_its_last_visit():
    sample = {1: [0, 1, 2, 3], 2: [2, 3, 4], 3: [0]}
    state, play, groups = federation(
        counting(), sample=lambda round: np.array(sample[round])
    )
    for _ in range(3):
        state, _ = play(state)
    seen = {
        int(c): int(state.clients[g.name][1]["round"][i])
        for g in groups
        for i, c in enumerate(g.clients)
    }
    # Broadcasts are numbered by the rounds before them.
    assert seen == {0: 2, 1: 0, 2: 1, 3: 1, 4: 1, 5: 0}


def test_a_cohort_may_be_smaller_than_usual_or_empty():
    sample = {1: [2, 5], 2: []}
    state, play, groups = federation(
        counting(), sample=lambda round: np.array(sample[round], int)
    )
    state, played = play(state)
    np.testing.assert_array_equal(played.cohort, [2, 5])
    np.testing.assert_array_equal(
        by_client(state, groups, "visits"), [0, 0, 1, 0, 0, 1]
    )
    assert float(state.server["weight"]) == 9 + 7
    assert float(state.server["sum"]) == 2 * (81 + 49)
    played = played.fetch()
    assert played.metrics["total"].shape == played.bytes_up.shape == (2,)
    before = helpers.copy(state.clients)
    state, played = play(state)
    # Nobody reported: the server goes on as it was.
    assert played.cohort.size == 0 and float(state.server["weight"]) == 9 + 7
    assert_trees_equal(state.clients, before)


def test_the_finish_of_a_visit_sees_the_new_broadcast_and_participants_only():
    state, play, groups = federation(counting(finish=True))
    state, played = play(state)
    expected = np.zeros(6)
    expected[played.cohort] = 1 + 100
    np.testing.assert_array_equal(by_client(state, groups, "visits"), expected)


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_number_that_is_none_is_reported_of_its_client_and_part(chunk):
    # Client 4 in its group of even ids; its first example is number 400.
    state, play, _ = federation(
        counting(fail=400), sample=lambda round: np.array([0, 1, 4, 5]), chunk=chunk
    )
    _, played = play(state)
    # The broadcast is a whole number, which is always finite.
    assert set(played.finite) == {"visits", "start", "upload"}
    assert played.finite["visits"].tolist() == [True, True, False, True]
    assert played.finite["start"].all()


def test_a_groups_program_is_traced_once_whatever_the_cohort():
    sizes = [4, 1, 3, 2, 4, 1]
    draw = np.random.default_rng(0)
    sample = lambda round: np.sort(draw.choice(6, sizes[round - 1], replace=False))
    algorithm, traced = counting(), []

    def client(model):
        plain = algorithm.client(model)
        # Once for the shapes, once for the program; chex adds up both groups.
        update = chex.assert_max_traces(plain.update, n=4)
        traced.append(model.name)
        return plain._replace(update=update)

    state, play, groups = federation(
        algorithm._replace(client=client), sample=sample, dropout=0.3, straggler=0.5
    )
    for _ in sizes:
        state, _ = play(state)  # a further trace would raise
    assert len(groups) == 2 and set(traced) == {group.name for group in groups}


def test_an_algorithm_whose_state_changes_its_shape_is_told_so():
    algorithm = counting()

    def client(model):
        plain = algorithm.client(model)

        def update(*arguments):
            out = plain.update(*arguments)
            longer = out.state._replace(visits=jnp.zeros(7))
            return out._replace(state=longer)

        return plain._replace(update=update)

    state, play, _ = federation(algorithm._replace(client=client))
    with pytest.raises(AssertionError, match="shapes"):
        play(state)


def test_clients_of_an_architecture_start_alike_only_if_told_to():
    for same in (True, False):
        state, _, groups = federation(counting(), same_start=same)
        start = by_client(state, groups, "start")
        again, _, _ = federation(counting(), same_start=same)
        np.testing.assert_array_equal(start, by_client(again, groups, "start"))
        per_group = [len(set(start[group.clients])) for group in groups]
        assert per_group == ([1, 1] if same else [3, 3])
        assert len(set(start)) == (2 if same else 6)
        other, _, _ = federation(counting(), same_start=same, seed=1)
        assert not np.isin(start, by_client(other, groups, "start")).any()


def test_one_program_serves_all_seeds():
    state, play, groups = federation(counting(), seed=1, same_start=False)
    config = RoundConfig(0, 4, 2, 4, same_start=False)
    init = initialization.make_init(counting(), groups, config)
    other = init(1)
    assert_trees_equal(other.clients, state.clients)
    _, expected = play(state)
    _, zero, _ = federation(counting(), seed=0, same_start=False)
    _, found = zero(other, 1)
    assert_trees_equal(found, expected)
    assert not np.array_equal(zero(init())[1].cohort, found.cohort)


def test_a_clients_start_does_not_depend_on_its_architectures_company():
    config = RoundConfig(0, 2, 1, 4, same_start=False)
    found = []
    for names in (["a", "b"], ["a"]):
        groups = population.assign(6, [model(name) for name in names])
        state = initialization.init(counting(), groups, config)
        found.append(by_client(state, groups, "start"))
    np.testing.assert_array_equal(*found)


# --- aggregation -------------------------------------------------------------------


def cohort_of(*weights):
    return Cohort(jnp.asarray(weights, jnp.float32), jnp.int32(1), jax.random.key(0))


def test_aggregation_weighs_by_training_samples_or_equally():
    uploads = {"w": jnp.array([[1.0, 0.0], [5.0, 8.0], [9.0, 4.0], [7.0, 7.0]])}
    cohort = cohort_of(1, 2, 5, 0)  # the last one is padding
    expected = {
        "mean": (np.array([1, 0]) + 2 * np.array([5, 8]) + 5 * np.array([9, 4])) / 8,
        "uniform": np.array([5, 4]),
    }
    for aggregation, value in expected.items():
        found = servers.aggregate(uploads, cohort, aggregation)
        np.testing.assert_allclose(found["w"], value, rtol=1e-6)
    with pytest.raises(ValueError, match="mean, uniform, last_client; got 'median'"):
        servers.averaging(lambda key: uploads, "median")


@pytest.fixture(scope="module")
def trained():
    """A round of FedMRL with clients of different sizes, and what they uploaded."""
    with jax.numpy_dtype_promotion("strict"):
        toy = helpers.Toy("fedmrl", same=True, cohort_size=4, epochs=1)
        start = toy.init()
        old = helpers.copy(start.server)
        state, played = toy.make()(start)
    _, shared = state.clients["a"]  # of all clients, one architecture
    uploads = jax.tree.map(lambda leaf: leaf[played.cohort], shared)
    return toy, old, state.server, played.cohort, uploads


def test_the_aggregate_is_the_weighted_mean_and_none_of_the_uploads(trained):
    toy, _, server, cohort, uploads = trained
    sizes = np.array([toy.train[c].size for c in cohort], np.float64)
    assert len(set(sizes)) > 1
    expected = jax.tree.map(
        lambda leaf: np.einsum(
            "k,k...->...", sizes / sizes.sum(), np.asarray(leaf, np.float64)
        ).astype(np.float32),
        uploads,
    )
    assert_trees_close(server, expected, atol=1e-6)
    for k in range(len(cohort)):
        far = jax.tree.map(
            lambda new, leaf, k=k: float(abs(new - leaf[k]).max()), server, uploads
        )
        assert min(jax.tree.leaves(far)) > 1e-4


@pytest.mark.slow
def test_networks_of_three_kinds_train_together():
    draw = np.random.default_rng(0)
    examples = Examples(
        jnp.asarray(draw.integers(0, 256, (24, 16, 16, 1)), jnp.uint8),
        jnp.asarray(np.arange(24) % 3, jnp.int32),
    )
    make = lambda name, width: models.build(name, (16, 16, 1), 3, feature_dim=width)
    setup = Setup(
        shared=lambda width: make("mlp", width),
        feature_dim=6,
        num_classes=3,
        optimizer=optimizers.sgd(0.01),
        prepare=images.prepare((0.5,), (0.25,), "none"),
    )
    algorithm = algorithms.build("fedmrl", setup, shared_dim=4)
    groups = population.assign(4, [make(n, 6) for n in ("cnn5", "mlp", "resnet8")])
    config = RoundConfig(seed=0, cohort_size=4, epochs=1, batch_size=3)
    train = np.split(np.arange(24, dtype=np.int32), 4)
    play = rounds.make(algorithm, groups, examples, train, config)
    start = initialization.init(algorithm, groups, config)
    before = jax.device_get((start.server, start.clients))
    state, played = play(start)
    assert all(finite.all() for finite in played.finite.values())
    assert np.isfinite(played.metrics["total"]).all()
    after = jax.device_get((state.server, state.clients))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    # Every network of every client moved, and so did the server's.
    moved = jax.tree.map(lambda a, b: (a != b).any(), before, after)
    assert all(jax.tree.leaves(moved))
    sizes = {g.name: g.clients.size for g in groups}
    assert sizes == {"cnn5": 2, "mlp": 1, "resnet8": 1}
