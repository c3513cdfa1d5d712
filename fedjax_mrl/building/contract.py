"""Holds a method of the user's own to `protocol`, by shapes, before any training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_mrl.building import visit_flops
from fedjax_mrl.config import ConfigError
from fedjax_mrl.data.dataset import Dataset
from fedjax_mrl.protocol import Algorithm, Cohort, Mechanism, Model, Setup
from fedjax_mrl.simulation import shapes

_BATCH = 2


def require(
    name: str, algorithm: Algorithm, model: Model, data: Dataset, setup: Setup
) -> None:
    """Traces one visit, one inference and one step of the server.

    Args:
        name: of the method, for messages.
        algorithm: the method.
        model: of one group of clients.
        data: what is trained on.
        setup: how examples are prepared.

    Raises:
        ConfigError: for results of another form than the protocol's.
        ValueError: as `Algorithm.client`.
    """
    client = algorithm.client(model)
    of = shapes.of(algorithm, model)
    visit = visit_flops.one_step_visit(data, _BATCH, _BATCH)
    out = _shapes(client.update, of.broadcast, of.private, visit, of.key)
    what = f"update of {name} for {model.name}"
    if "total" not in out.metrics:
        raise ConfigError(
            f'metrics of {what} must have a "total", the loss that tables show; got '
            f'{", ".join(out.metrics) or "none"}. Add it to Terms(loss, {{"total": '
            "loss})."
        )
    _require_same(out.state, of.private, f"state of {what}", "Client.init makes it")
    _require_same(out.shared, of.broadcast, f"shared of {what}", "Server.broadcast is")
    index = jnp.arange(_BATCH, dtype=jnp.int32)
    x = jax.eval_shape(lambda x: setup.prepare.test(x, index), visit.examples.x)
    heads = _shapes(client.predict, of.broadcast, of.private, x)
    if set(heads) != set(algorithm.heads):
        raise ConfigError(
            f"predict of {name} must return logits for the heads of its Algorithm, "
            f"{', '.join(algorithm.heads)}; it returns {', '.join(heads)}."
        )
    stacked = lambda leaf: jax.ShapeDtypeStruct((_BATCH, *leaf.shape), leaf.dtype)
    uploads = jax.tree.map(stacked, out.upload)
    real = jax.dtypes.canonicalize_dtype(float)
    weights, number = jnp.zeros(_BATCH, real), jnp.int32(1)
    server = _shapes(
        lambda state, uploads, key: algorithm.server.update(
            state, uploads, Cohort(weights, number, key)
        ),
        of.server,
        uploads,
        of.key,
    )
    _require_same(
        server,
        of.server,
        f"server state of {name} after Server.update",
        "Server.init makes it",
        " It is made of the uploads: look first at `upload` of the ClientUpdate that "
        "update returns, then at Server.update.",
    )
    _require_release(name, algorithm, out.upload, of.broadcast)


def _require_release(
    name: str, algorithm: Algorithm, upload: Any, broadcast: Any
) -> None:
    """Holds `Server.release`, if there is one, to its form."""
    release = algorithm.server.release
    if release is None:
        return
    mechanism = Mechanism(1.0, 1.0, 2.0)
    of = lambda value, sent: release.part(value, sent, mechanism)
    sums = _shapes(of, upload, broadcast)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(sums)}
    if not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
        raise ConfigError(
            f"Server.release.part of {name} must give floats, which noise can be added "
            f"to; got {', '.join(sorted(kinds))}."
        )
    made = _shapes(lambda s, sent: release.upload(s, sent, mechanism), sums, broadcast)
    what = f"Server.release.upload of {name}"
    _require_same(made, upload, what, "an upload of Client.update is")


def require_no_class_travels(name: str, one: Algorithm, wider: Algorithm) -> None:
    """Refuses tasks of clients' own where what travels is about classes.

    Args:
        name: of the method, for messages.
        one: the method.
        wider: the same for one more class: what travels must be of the same shapes.

    Raises:
        ConfigError: if it is not, as of a shared header or of prototypes.
    """

    if shapes.of_server(one)[2] != shapes.of_server(wider)[2]:
        raise ConfigError(
            f"Clients with tasks of their own can share nothing that is about classes, "
            f"but what {name} sends is. Use a method that shares extractors alone, as "
            'fml with set={"algorithm.share": "extractor"} or fedmrl with '
            'set={"algorithm.readout": "local"}, or standalone.'
        )


def _shapes(function: Callable[..., Any], *arguments: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
        return jax.eval_shape(function, *arguments)


def _require_same(
    found: Any, wanted: Any, what: str, whence: str, advice: str = ""
) -> None:
    """Refuses another structure, or leaves of another shape or type."""
    if jax.tree.structure(found) != jax.tree.structure(wanted):
        raise ConfigError(
            f"{what} must be built as {whence}: {_built(wanted)}; got "
            f"{_built(found)}.{advice}"
        )
    leaves = jax.tree_util.tree_leaves_with_path(wanted)
    for (path, leaf), other in zip(leaves, jax.tree.leaves(found), strict=True):
        if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
            place = jax.tree_util.keystr(path, simple=True, separator="/") or "it"
            raise ConfigError(
                f"{what} must be as {whence}, but {place} is {other.dtype} "
                f"{list(other.shape)} instead of {leaf.dtype} {list(leaf.shape)}."
                f"{advice}"
            )


def _built(tree: Any) -> str:
    text = str(jax.tree.structure(tree)).removeprefix("PyTreeDef(").removesuffix(")")
    return text if len(text) < 160 else f"{text[:157]}..."
