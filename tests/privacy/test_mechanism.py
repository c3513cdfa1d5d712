"""Clipping, summing and noise, on numbers."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from fedjax_mrl.learning import prototypes, servers
from fedjax_mrl.learning.prototypes import ClassMeans
from fedjax_mrl.protocol import Algorithm, Mechanism
from fedjax_mrl.simulation import privatising
from fedjax_mrl.simulation.visit import Report
from tests.helpers import assert_trees_equal

CLIP = 0.7
K, D = 4, 3


@functools.cache
def summing():
    def of(uploads, counts):
        part = lambda upload: {"a": upload[:2], "b": upload[2:]}
        return privatising.clipped_sum(part, uploads, counts, CLIP)

    return jax.jit(of)


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
cohorts = of_numpy.arrays(np.float32, (K, D), elements=numbers)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    cohorts,
    of_numpy.arrays(np.float32, D, elements=numbers),
    st.integers(0, K - 1),
    of_numpy.arrays(bool, K),
)
def test_replacing_a_client_moves_sums_by_at_most_twice_the_clip(
    uploads, other, place, counts
):
    replaced = uploads.copy()
    replaced[place] = other
    one, two = (summing()(given, counts) for given in (uploads, replaced))
    moved = np.concatenate([one[name] - two[name] for name in ("a", "b")])
    assert np.linalg.norm(moved.astype(np.float64)) <= 2 * CLIP
    # Adding it instead: at most once.
    absent = counts.copy()
    absent[place] = False
    without = summing()(uploads, absent)
    moved = np.concatenate([one[name] - without[name] for name in ("a", "b")])
    assert np.linalg.norm(moved.astype(np.float64)) <= CLIP


@pytest.mark.filterwarnings("ignore:optax.global_norm:DeprecationWarning")
def test_clipping_is_that_of_jax_privacy():
    clipping = pytest.importorskip("jax_privacy.clipping")
    draw = np.random.default_rng(0).normal(size=(K, D)).astype(np.float32)
    draw *= np.array([0.1, 1, 10, 0.3], np.float32)[:, None]
    clipped = [clipping.clip_pytree(jnp.asarray(row), CLIP)[0] for row in draw]
    assert 0 < sum(np.linalg.norm(row) < CLIP - 1e-3 for row in draw) < K
    found = summing()(draw, np.ones(K, bool))
    joined = np.concatenate([found["a"], found["b"]])
    np.testing.assert_allclose(joined, np.sum(clipped, axis=0), atol=3e-4)


def report(uploads, sound):
    nothing = np.zeros(K, np.float32)
    return Report(nothing, {}, {}, np.array(sound), uploads)


def stepped(server, state, uploads, sound=(True,) * K, weights=(9, 1, 5, 0), **changes):
    """The server's new state; `weights` are unequal, and one did not report."""
    mechanism = Mechanism(**{"clip": 2.0, "noise": 1e-9, "participants": 4, **changes})
    algorithm = Algorithm(server, lambda model: None, ("a",))
    step = privatising.stepper(algorithm, mechanism, True, None)
    keys = [np.array([0, n], np.uint32) for n in (1, 2)]
    weights = np.array(weights, np.float32)
    given = jax.tree.map(jnp.array, state)
    return step(given, report(uploads, sound), weights, np.int32(1), *keys)[0]


AVERAGING = servers.averaging(lambda key: None)


def test_all_clients_weigh_the_same_and_who_is_missing_counts_as_zero():
    start = np.full(D, 10.0, np.float32)
    changes = np.array([[1, 0, 0], [0, 0.5, 0], [0, 0, 30], [7, 7, 7]], np.float32)
    found = stepped(AVERAGING, start, start + changes)
    # The third is clipped; the fourth did not report and is divided by all the same.
    np.testing.assert_allclose(found - start, np.array([1, 0.5, 2]) / 4, rtol=1e-3)
    rejected = stepped(AVERAGING, start, start + changes, (True, False, True, True))
    np.testing.assert_allclose(rejected - start, np.array([1, 0, 2]) / 4, rtol=1e-3)
    broken = np.where(changes == 30, np.nan, changes)
    found = stepped(AVERAGING, start, start + broken)
    np.testing.assert_allclose(found - start, np.array([1, 0.5, 0]) / 4, rtol=1e-3)


def test_noise_has_its_size_also_when_nobody_reports():
    start = {"a": np.zeros(20000, np.float32), "b": np.zeros((100, 100), np.float32)}
    uploads = jax.tree.map(lambda leaf: np.stack([leaf] * K), start)
    found = stepped(AVERAGING, start, uploads, weights=[0] * K, noise=3.0, clip=2.0)
    for leaf in found.values():
        assert float(jnp.std(leaf)) == pytest.approx(3.0 * 2.0 / 4, rel=0.03)
        assert abs(float(jnp.mean(leaf))) < 0.05
    assert not np.array_equal(found["a"][:10000], found["b"].ravel())
    again = stepped(AVERAGING, start, uploads, weights=[0] * K, noise=3.0, clip=2.0)
    assert_trees_equal(found, again)


def correlation(a, b):
    return abs(float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]))


@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16])
def test_noise_of_one_key_cannot_be_taken_away_by_other_noise_of_it(kind):
    key = jax.random.key(3)
    sums = {"a": np.linspace(-1, 1, 4000).astype(kind), "b": np.zeros((2, 0), kind)}
    noise_of = jax.jit(
        lambda sums, std: jax.tree.map(
            jnp.subtract, privatising.noise.add(sums, key, std), sums
        )["a"].astype(np.float32),
        static_argnums=1,
    )
    first = noise_of(sums, 2.0)
    assert correlation(first, noise_of(sums, 2.0)) > 0.999  # the same round again
    assert correlation(first, noise_of(sums, 4.0)) < 0.1
    for place in (0, 2000, 3999):  # one bit of one number, its sign
        other = {**sums, "a": sums["a"].copy()}
        other["a"][place] *= -1
        assert correlation(first, noise_of(other, 2.0)) < 0.1
    exchanged = {**sums, "a": sums["a"][::-1].copy()}
    assert correlation(first, noise_of(exchanged, 2.0)) < 0.1


def class_means(held):
    """Uploads of K clients, of which each holds some of three classes."""
    count = np.array([[5 * (c in own) for c in range(3)] for own in held], np.int32)
    vector = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    return ClassMeans(np.where(count[..., None] > 0, vector, 0), count), vector


def test_class_means_keep_their_direction_and_unseen_classes_stay_unknown():
    uploads, vector = class_means([{0}, {0, 1}, {1}, {2}])  # the last did not report
    server = prototypes.merging(3, 2)
    start = server.init(None)
    for clip in (100.0, 0.5):  # none is clipped; every one is
        found = stepped(server, start, uploads, clip=clip)
        assert found.known.tolist() == [True, True, False]
        expected = np.where(found.known[:, None], vector, 0)
        np.testing.assert_allclose(found.vector, expected, rtol=1e-3)


def test_a_class_that_does_not_stand_out_from_the_noise_is_unknown():
    # Four clients have the class, and noise that stays below two deviations hides them.
    mechanism = Mechanism(10.0, 10.0, K)
    for presence, known in ((4 + 150, False), (4 + 250, True)):
        sums = prototypes.Sums(jnp.full((1, 2), 508.0), jnp.full(1, presence * 1.0))
        found = prototypes.CLASS_SUMS.upload(sums, None, mechanism)
        assert found.count.tolist() == [int(known)]
        np.testing.assert_allclose(found.mean, 508 / presence if known else 0)


def test_presence_is_clipped_together_with_the_means():
    uploads = jax.tree.map(jnp.asarray, class_means([{0, 1}] * K)[0])
    mechanism = Mechanism(1.0, 1.0, K, presence=3.0)
    part = lambda upload: prototypes.CLASS_SUMS.part(upload, None, mechanism)
    one = part(jax.tree.map(lambda leaf: leaf[0], uploads))
    assert one.presence.tolist() == [3, 3, 0]
    first = jnp.array([True, False, False, False])
    found = privatising.clipped_sum(part, uploads, first, 1.0)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in found))
    assert norm == pytest.approx(1.0, rel=1e-3)
    ratio = float(found.presence[0] / found.mean[0, 1])
    assert ratio == pytest.approx(3 / 2)  # as before: all is shortened alike
