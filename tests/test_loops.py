"""Loops over rounds in Python: what may be kept, left, gone on with, and what not."""

import copy
import functools

import jax
import numpy as np
import pytest

import fedjax_mrl as fm
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.simulation.state import ConsumedError, require_live
from tests.helpers import assert_trees_equal

STORES = ("device", "host", "disk")
CLASSES = 3


@functools.cache
def dataset():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (60, 4, 4, 1)).astype(np.uint8)
    y = (np.arange(60) % CLASSES).astype(np.int32)
    return Dataset("toy", x, y, x, y, ("a", "b", "c"), (0.5,), (0.25,), "none")


@functools.cache
def built(folder, store):
    return fm.Federation(
        algorithm="fml",
        dataset=dataset(),
        models=("mlp",),
        shared_model="mlp",
        feature_dim=6,
        num_clients=4,
        partition="iid",
        rounds=3,
        batch_size=8,
        client_store=store,
        client_folder=folder / store,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(params=STORES)
def federation(folder, request):
    """A fresh federation, whose programs are compiled once."""
    found = copy.copy(built(folder, request.param))
    found.state = None
    return found


@pytest.fixture(scope="module")
def digests(folder):
    """Of rounds 0 to 3."""
    federation = built(folder, "device")
    state, found = federation.init(), []
    for _ in range(3):
        state, _ = federation.play(state)
        found.append(digest(federation, state))
    return found


def digest(federation, state):
    return federation.digester()(state)[0]


@pytest.mark.slow
def test_every_loop_plays_the_same_rounds(federation, digests):
    found = []
    for result in federation.rounds():
        accuracy = result.scores.accuracy
        assert accuracy.shape == (2, 2, 4)
        again = federation.evaluate(result.state)
        np.testing.assert_array_equal(again.correct, result.scores.correct)
        np.testing.assert_array_equal(
            again.correct, federation.evaluate(federation.state).correct
        )
        found.append(digest(federation, result.state))
    assert found == digests
    assert federation.state.round == 3 and list(federation.rounds()) == []


def test_a_loop_that_was_left_goes_on(federation, digests):
    for result in federation.rounds():
        if result.state.round == 1:
            break
    (second,) = federation.rounds(state=result.state, until=2)
    assert digest(federation, second.state) == digests[1]
    (third,) = federation.rounds()  # from the newest state
    assert digest(federation, third.state) == digests[2]
    first = next(federation.rounds(federation.init()))  # anew
    assert digest(federation, first.state) == digests[0]


def test_all_results_can_be_kept_and_the_newest_state_used(federation, digests):
    results = list(federation.rounds())
    assert [result.state.round for result in results] == [1, 2, 3]
    assert all(np.isfinite(r.played.metrics["total"]).all() for r in results)
    assert digest(federation, results[-1].state) == digests[2]
    for use in (
        federation.play,
        federation.evaluate,
        federation.arrays,
        federation.digester(),
        lambda state: next(federation.rounds(state)),
    ):
        with pytest.raises(ConsumedError, match=r"after round 1 is gone.*newest state"):
            use(results[0].state)
    assert digest(federation, results[-1].state) == digests[2]  # still whole


def test_one_state_is_not_given_to_two_trials(federation):
    state = federation.init()
    other = federation.with_trial(seed=1)
    with pytest.raises(ConsumedError, match="given twice"):
        federation.play_together([federation.trial, other.trial], [state, state])
    require_live(state)
    states = [state, other.init()]
    played = federation.play_together([federation.trial, other.trial], states)
    assert [result[0].round for result in played] == [1, 1]


def test_another_trial_has_a_newest_state_of_its_own(folder):
    federation = copy.copy(built(folder, "device"))
    federation.state = None
    with pytest.raises(ValueError, match="no state yet"):
        federation.evaluate()
    next(federation.rounds())
    assert federation.evaluate().accuracy.shape == (2, 2, 4)
    assert federation.with_trial(seed=1).state is None


def spoilt(federation):
    """The first state, with the network of client 2 not finite."""
    state = federation.init()
    arrays = jax.tree.map(np.array, federation.arrays(state))
    for leaf in jax.tree.leaves(arrays["clients"]):
        leaf[2] = np.nan
    return federation.place(0, arrays)


def test_a_loop_ends_where_training_diverges(folder):
    federation = copy.copy(built(folder, "device"))
    federation.state = None
    loop = federation.rounds(spoilt(federation))
    words = r"round 1: no longer finite are client 2: private.*learning_rate.*until=0"
    with pytest.raises(fm.Diverged, match=words):
        next(loop)
    assert federation.state is None
    state, played = federation.play(spoilt(federation))  # tells by its flags
    assert played.fetch().finite["private"].tolist() == [True, True, False, True]
    assert state.round == 1


def test_a_loop_goes_on_where_the_server_rejects_who_diverges(folder):
    base = built(folder, "device")
    federation = fm.Federation(
        base.config,
        dataset=dataset(),
        set={"server.reject_nonfinite": True},
        client_store="device",
    )
    result = next(federation.rounds(spoilt(federation)))
    assert result.played.rejected == 1
    assert_trees_equal(
        jax.tree.map(np.isfinite, jax.device_get(result.state.server)),
        jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), result.state.server),
    )


@pytest.mark.parametrize("store", STORES)
def test_runs_of_one_federation_do_not_touch_each_others_states(folder, store):
    federation = copy.copy(built(folder, store))
    other = federation.with_trial(seed=1)
    state, _ = federation.play(federation.init())
    there = digest(federation, state)
    theirs, _ = other.play(other.init())
    assert digest(other, theirs) != there
    assert digest(federation, state) == there
    # A state that is made of saved arrays goes its own way, too.
    back = federation.place(1, federation.arrays(state))
    after = digest(federation, federation.play(back)[0])
    other.play(theirs)
    assert digest(federation, state) == there
    assert digest(federation, federation.play(state)[0]) == after
