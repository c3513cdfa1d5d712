"""A Flax nnx module taken apart into parameters and everything else.

`parts` makes halves of networks of it; nnx is imported only where it is used.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_mrl.protocol import Key, Params

FLAGS = {"train": True, "training": True, "deterministic": False}  # while it trains


def parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Parameters of a function, or those that a class is made with."""
    if inspect.isclass(function) and not issubclass(function, nn.Module):
        known = dict(inspect.signature(function.__init__).parameters)
        return {name: known[name] for name in list(known)[1:]}
    return inspect.signature(function).parameters


def is_nnx(value: Any) -> bool:
    """Whether it is a Flax nnx module."""
    from flax import nnx

    return isinstance(value, nnx.Module)


def is_nnx_class(value: Any) -> bool:
    """Whether it is a class of Flax nnx modules."""
    from flax import nnx

    return inspect.isclass(value) and issubclass(value, nnx.Module)


class Mutable(ValueError):
    """Says what a network may not keep; begins after its name."""


def refuse_mutable(kinds: list[str]) -> None:
    """Refuses a network that keeps more than parameters, of these kinds.

    Raises:
        Mutable: if there are any.
    """
    if kinds:
        raise Mutable(
            f"keeps {', '.join(sorted(kinds))} besides parameters, as BatchNorm its "
            "running statistics, and no method says whether they are private or "
            "shared. Use nn.GroupNorm or nn.LayerNorm instead."
        )


class Graph:
    """An nnx module taken apart into parameters and everything else."""

    def __init__(self, source: Any, what: str) -> None:
        from flax import nnx

        if is_nnx(source):
            self._make = lambda rngs: source
        else:  # by name, as a class has it: there may be others before it
            named = "rngs" in parameters(source)
            self._make = (lambda rngs: source(rngs=rngs)) if named else source
        try:
            self.module = nnx.eval_shape(lambda: self._make(nnx.Rngs(0)))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{what} must be a function from nnx.Rngs to an nnx module, but "
                f"calling it failed ({type(error).__name__}: {reason})."
            ) from error
        if not is_nnx(self.module):
            raise ValueError(
                f"{what} must be a Flax module, a function from nnx.Rngs to one, or a "
                "pair of functions (init, apply); it returns "
                f"{type(self.module).__name__}."
            )
        self.name = type(self.module).__name__
        self._graphs = {}
        for training in (False, True):
            self.module.train() if training else self.module.eval()
            graph, params, rest = nnx.split(self.module, nnx.Param, ...)
            self._graphs[training] = graph
        self._params, self._rest = params, rest
        self.shapes = _plain(nnx.to_pure_dict(params))
        kinds = {
            type(leaf).__name__
            for leaf in jax.tree.leaves(
                rest, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
            )
            if not isinstance(leaf, nnx.RngState)
        }
        self._mutable = sorted(kinds)
        self.stochastic = bool(jax.tree.leaves(rest))
        self._arrays = any("ShapeDtypeStruct" in kind for kind in kinds)

    def init(self, key: Key) -> Params:
        """Draws the parameters."""
        from flax import nnx

        if self._arrays:
            raise Mutable(
                "holds arrays that are no nnx.Param; make constants in the call, or "
                "parameters of them."
            )
        refuse_mutable(self._mutable)
        made = self._make(nnx.Rngs(key))
        return _plain(nnx.to_pure_dict(nnx.state(made, nnx.Param)))

    def call(
        self, params: Params, x: jax.Array, key: Key | None, pick: Callable
    ) -> jax.Array:
        """Calls what `pick` takes of the module that has these parameters."""
        from flax import nnx

        state = jax.tree.map(lambda leaf: leaf, self._params)
        nnx.replace_by_pure_dict(state, params)
        streams = 0

        def stream(leaf):  # a fresh one for each random stream of the module
            nonlocal streams
            if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jnp.zeros(leaf.shape, leaf.dtype)
            streams += 1
            begun = jax.random.key(0) if key is None else key
            return jax.random.fold_in(begun, streams)

        rest = jax.tree.map(stream, self._rest)
        module = nnx.merge(self._graphs[key is not None], state, rest)
        called = pick(module)
        return called(x, **_flags(called, key is not None))


def _flags(called: Callable[..., Any], training: bool) -> dict[str, bool]:
    """What a call is to be told of training, by the names of its parameters."""
    known = inspect.signature(called).parameters
    return {n: value == training for n, value in FLAGS.items() if n in known}


def _plain(tree: Any) -> Any:
    """Nested dicts with names for keys, also where lists have positions."""
    if not isinstance(tree, dict):
        return tree
    return {str(key): _plain(value) for key, value in tree.items()}
