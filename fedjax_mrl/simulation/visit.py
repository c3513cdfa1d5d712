"""One client's visit of a round: its training, and what it reports of it."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from fedjax_mrl import tree
from fedjax_mrl.protocol import Client, Tree
from fedjax_mrl.simulation.settings import Settings


class Report(NamedTuple):
    """A visit's report to the server; [K, ...] for those of a cohort."""

    bytes_up: jax.Array  # [] float32
    finite: dict[str, jax.Array]  # part of the client's networks, or "upload" -> []
    metrics: dict[str, jax.Array]  # [] each, mean over the local steps
    sound: jax.Array  # [] bool, all of `finite`
    upload: Tree  # what the algorithm sends; None once the server has used it


def train(client: Client, settings: Settings) -> Callable:
    """Returns the visit of one member.

    Returns:
        A function of broadcast, (private state, shared copy), visit and key to the
        next (private state, shared copy) and the `Report`.
    """

    def visit_once(broadcast, before, visit, key):
        state, shared = before
        out = client.update(broadcast, state, visit, key)
        # While tracing: an algorithm whose state changes its shapes is told so here.
        chex.assert_trees_all_equal_shapes_and_dtypes(out.state, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(out.shared, shared)
        steps = jnp.maximum(visit.train.steps, 1)
        finite = _finite({"shared": out.shared, "state": out.state})
        finite["upload"] = sound(out.upload, settings.max_upload_norm)
        all_finite = jnp.stack(list(finite.values())).all()
        after = (out.state, out.shared)
        if settings.keep_sound:
            after = tree.where(all_finite, after, before)
        metrics = {
            name: trace.sum() / steps.astype(trace.dtype)
            for name, trace in out.metrics.items()
        }
        bytes_up = out.upload_bytes
        if bytes_up is None:
            bytes_up = jnp.float32(tree.num_bytes(out.upload))
        return after, Report(bytes_up, finite, metrics, all_finite, out.upload)

    return visit_once


def finish(client: Client) -> Callable:
    """Returns what one member does after the server's step; it reports nothing."""
    assert client.finish is not None
    finish_state = client.finish

    def finish_once(broadcast, state, visit, key):
        return finish_state(broadcast, state, visit, key), ()

    return finish_once


def sound(upload: Tree, max_norm: float = 0.0) -> jax.Array:
    """Whether an upload is finite, and not absurdly large if there is a limit.

    Counts of examples are integers, of which neither is asked: a client is not odd
    because it has many examples.
    """
    square = tree.squared_norm(_floating(upload))
    finite = jnp.isfinite(square)
    return finite & (square <= max_norm**2) if max_norm else finite


def _floating(value: Tree) -> list[jax.Array]:
    return [
        leaf
        for leaf in jax.tree.leaves(value)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def _finite(values: dict[str, Tree]) -> dict[str, jax.Array]:
    """Whether every number is finite: a flag for each network of each value."""
    flags = {}
    for name, value in values.items():
        named = hasattr(value, "_fields") and name == "state"
        networks = value._asdict() if named else {name: value}
        for network, leaves in networks.items():
            if _floating(leaves):
                # A sum of squares is finite unless a number is not (or is absurd).
                flags[network] = jnp.isfinite(tree.squared_norm(_floating(leaves)))
    return flags
