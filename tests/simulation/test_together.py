"""Several seeds and learning rates played at once: each as if it were alone."""

import functools

import jax
import numpy as np
import pytest

from fedjax_mrl import sharding, stores
from fedjax_mrl.simulation.cohorts import Trial
from fedjax_mrl.simulation.group_program import GroupProgram
from fedjax_mrl.simulation.settings import settings_of
from tests.helpers import assert_trees_equal
from tests.test_federation import federation

OPTIMISED = True  # the bits of programs as users have them are compared
WIDE = True
TRIALS = (Trial(0, 0.01), Trial(3, 0.01), Trial(0, 0.1))


@functools.cache
def pair(algorithm, store, chunk=1):
    """A federation and its variants, one for each trial."""
    options = {"dropout": 0.2, "participation": 0.7, "client_store": store}
    options["chunk"] = chunk
    made = federation(algorithm, **options)
    return made, [made.with_trial(*trial) for trial in TRIALS]


def digests(variants, states):
    return [v.digester()(state)[0] for v, state in zip(variants, states, strict=True)]


def alone(variant, rounds):
    state = variant.init()
    for _ in range(rounds):
        state, played = variant.play(state)
    return state, played.fetch()


@pytest.mark.parametrize(
    ("algorithm", "store", "chunk"),
    [
        ("fedmrl", "device", 1),
        pytest.param("fedmrl", "host", 2, marks=pytest.mark.slow),
        pytest.param("fedgh", "host", 1, marks=pytest.mark.slow),
        pytest.param("fedapen", "device", 1, marks=pytest.mark.slow),
    ],
)
def test_trials_played_together_are_equal_to_each_alone(algorithm, store, chunk):
    made, variants = pair(algorithm, store, chunk)
    states = [variant.init() for variant in variants]
    for _ in range(2):
        results = made.play_together(TRIALS, states)
        states = [state for state, _ in results]
    expected = [alone(variant, 2) for variant in variants]
    assert digests(variants, states) == digests(variants, [s for s, _ in expected])
    for (_, played), (_, single) in zip(results, expected, strict=True):
        assert_trees_equal(played.fetch(), single)
    # They do differ from each other.
    assert len(set(digests(variants, states))) == len(TRIALS)


def test_trials_may_stand_in_different_rounds_and_one_may_be_left_out():
    made, variants = pair("fedmrl", "host")
    states = [variants[0].init(), None, alone(variants[2], 1)[0]]
    results = made.play_together(TRIALS, states)
    assert results[1] is None
    assert [results[i][0].round for i in (0, 2)] == [1, 2]
    expected = [alone(variants[0], 1)[0], alone(variants[2], 2)[0]]
    chosen = [variants[0], variants[2]]
    found = [results[0][0], results[2][0]]
    assert digests(chosen, found) == digests(chosen, expected)
    assert made.play_together(TRIALS, [None] * 3) == [None] * 3


def test_no_trial_round_or_absence_compiles_anything_again():
    made, variants = pair("fedmrl", "host")
    states = [variant.init() for variant in variants]
    states = [state for state, _ in made.play_together(TRIALS, states)]
    other = (Trial(7, 0.5), *TRIALS[1:])
    again = lambda: made.play_together(other, [*states[:2], None])
    assert _compilations(again) == 0
    # That compilations are seen at all:
    assert _compilations(lambda: made.play_together(other[:2], [made.init(), None])) > 0


def _compilations(play):
    """How many programs are compiled meanwhile."""
    found = []
    listen = lambda event, seconds, **_: found.append(event)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        play()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return sum("backend_compile" in event for event in found)


@pytest.mark.parametrize("kind", ["device", "host", "disk"])
def test_a_store_takes_and_puts_states_of_several_at_once(kind, tmp_path):
    store = stores.make(kind, sharding.mesh(1), tmp_path)
    fresh = lambda rows: np.float32(rows)[:, None] * np.ones(2, np.float32)
    handles = [store.create(f"g{i}", 4, fresh) for i in range(2)]
    which = np.array([1, 0, 1, 0], np.int32)
    rows = np.array([2, 1, 3, stores.PADDING_ROW], np.int32)
    taken = store.take(handles, which, rows)
    np.testing.assert_array_equal(taken[:3, 0], [2, 1, 3])
    handles = store.put(handles, which, rows, taken + 10)
    found = [np.array(store.read(handle, np.arange(4)))[:, 0] for handle in handles]
    np.testing.assert_array_equal(found[0], [0, 11, 2, 3])
    np.testing.assert_array_equal(found[1], [0, 1, 12, 13])
    again = store.take(handles, which, rows)
    np.testing.assert_array_equal(again[:3, 0], [12, 11, 13])


@pytest.mark.parametrize(("chunk", "width"), [(0, 2), (1, 1), (2, 2), (9, 2)])
def test_programs_are_as_wide_for_several_trials_as_for_one(chunk, width):
    """With other widths a member might be compiled to other sums than alone."""
    made, _ = pair("fedmrl", "device")
    config = made.round_config._replace(chunk=chunk, chunks={}, cohort_size=2)
    (group,) = made.groups
    for trials in (1, 3):
        settings = settings_of(config, made.mesh, 4, 3, group.name, trials)
        program = GroupProgram(made.algorithm, group, made.population, settings)
        assert program.chunk == width
        assert program.places >= 2 * trials and program.places % width == 0


def test_a_learning_rate_of_a_trial_is_that_of_a_federation():
    made = federation("standalone")
    state, _ = made.with_trial(learning_rate=0.5).play(made.init())
    fresh = federation("standalone", learning_rate=0.5)
    expected, _ = fresh.play(fresh.init())
    assert digests([made], [state]) == digests([fresh], [expected])
