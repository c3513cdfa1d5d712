"""An attack on the server's step: it must not tell more than epsilon allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.learning import servers
from fedjax_mrl.privacy.account import Account
from fedjax_mrl.protocol import Algorithm, Mechanism
from fedjax_mrl.simulation import privatising
from fedjax_mrl.simulation.visit import Report

auditing = pytest.importorskip("jax_privacy.auditing")
K, D, RUNS, CLIP = 5, 8, 4000, 0.5


def scores(noise, direction):
    """How far the server moved along the canary's direction, in many runs.

    The canary is the last client; it sends a change that is far too large, and its
    replacement the opposite.
    """
    server = servers.averaging(lambda key: None)
    algorithm = Algorithm(server, lambda model: None, ("a",))
    step = privatising.stepper(algorithm, Mechanism(CLIP, noise, K), False, None)
    uploads = np.random.default_rng(0).normal(size=(K, D)).astype(np.float32)
    uploads[-1] = 0
    uploads[-1, 0] = 1e3 * direction
    nothing = jnp.zeros(K)
    report = Report(nothing, {}, {}, nothing == 0, uploads)

    def once(key):
        return step(jnp.zeros(D), report, nothing + 1, jnp.int32(1), key, key)[0][0]

    keys = jax.random.split(jax.random.key(int(direction > 0)), RUNS)
    return np.asarray(jax.jit(jax.vmap(once))(jax.random.key_data(keys)))


def lower_bound(noise):
    auditor = auditing.CanaryScoreAuditor(scores(noise, 1), scores(noise, -1))
    return auditor.epsilon_clopper_pearson(significance=0.05, delta=1e-3)


def test_an_attack_finds_less_than_epsilon_and_more_where_noise_is_missing():
    epsilon = Account(CLIP, 2.0, 1e-3, "fixed", 1.0).epsilon(1)
    found = lower_bound(2.0)
    assert epsilon / 4 < found < epsilon
    # It would have found a mistake of this size: noise of the sensitivity C, not 2 C.
    assert lower_bound(0.5) > epsilon
