"""The server's step with differential privacy at the level of clients.

What a client adds is clipped to one norm, the sum over the cohort gets Gaussian noise,
and the server is given one upload made of it (`protocol.Release`), with the weight of
one participant. So nothing of its equations changes, and nothing else of any client,
such as how many examples it has, whether it reported, or that its report was rejected,
reaches it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl import rng, tree
from fedjax_mrl.protocol import Algorithm, Cohort, Mechanism
from fedjax_mrl.simulation import noise

# A norm in float32 may come out below the true one by this share of it.
_ROUNDING = 1e-4


def stepper(
    algorithm: Algorithm, mechanism: Mechanism, reject: bool, place: Any
) -> Callable:
    """Returns the server's step.

    Unlike `aggregation.stepper`'s, it also changes the server when nobody reports:
    there is noise all the same.

    Args:
        algorithm: whose server; it has a `Server.release`.
        mechanism: clipping and noise.
        reject: leave out reports that are not sound.
        place: where it is computed; None is wherever its arguments are.

    Returns:
        server state (consumed), reports [K, ...] in cohort order, weights [K], round,
        raw key, raw key of the noise -> server state, reports without uploads, whether
        all numbers of the state are finite.
    """
    server, release = algorithm.server, algorithm.server.release
    assert release is not None, "refused when the method was built"

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=place)
    def step(state, reports, weights, round, key, noise_key):
        counts = weights > 0
        if reject:
            counts &= reports.sound
        sent = server.broadcast(state)
        sums = clipped_sum(
            lambda upload: release.part(upload, sent, mechanism),
            reports.upload,
            counts,
            mechanism.clip,
        )
        noisy = noise.add(sums, rng.wrap(noise_key), mechanism.std)
        upload = release.upload(noisy, sent, mechanism)
        uploads = jax.tree.map(lambda leaf: leaf[None], upload)
        one = Cohort(jnp.ones(1, weights.dtype), round, rng.wrap(key))
        new = server.update(state, uploads, one)
        return new, reports._replace(upload=None), tree.all_finite(new)

    return step


def clipped_sum(
    part: Callable[[Any], Any], uploads: Any, counts: jax.Array, clip: float
) -> Any:
    """Sums what clients add, each shortened to a norm of at most `clip`.

    Another upload of one client changes the sum by at most 2 `clip`. What is not finite
    counts as zero.

    Args:
        part: upload -> what its client adds, a pytree of floats.
        uploads: [K, ...].
        counts: [K] bool; those that do not count add zero.
        clip: C.

    Returns:
        Leaves shaped as those of `part`, added in the order of the cohort.
    """
    of = lambda k: part(jax.tree.map(lambda leaf: leaf[k], uploads))

    def add(k, sums):
        added = of(k)
        norm = jnp.sqrt(tree.squared_norm(added)) * (1 + _ROUNDING)
        there = counts[k] & jnp.isfinite(norm)
        scale = jnp.where(norm > clip, clip / norm, 1)

        def with_next(total, leaf):
            shortened = leaf * scale.astype(leaf.dtype)
            return total + jnp.where(there, shortened, jnp.zeros((), leaf.dtype))

        return jax.tree.map(with_next, sums, added)

    like = jax.eval_shape(of, 0)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return lax.fori_loop(0, counts.shape[0], add, zeros)
