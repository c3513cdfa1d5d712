"""Halves of a network, an extractor or a head, from Flax modules or plain functions."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_mrl.models import graphs
from fedjax_mrl.protocol import Key, Params


class Part(NamedTuple):
    """One half as pure functions.

    Attributes:
        init: key, inputs -> parameters, a pytree of dicts.
        apply: parameters, inputs, key -> outputs. Where the key is None nothing is
            random, as in a test.
        stochastic: whether it can make use of a key.
        resize: width -> the same half with outputs so wide; None if it has one width.
        foreign: parameters, inputs -> whether the outputs depend on the other half of
            the same module; None for a half that has none.
    """

    init: Callable[[Key, jax.Array], Params]
    apply: Callable[[Params, jax.Array, Key | None], jax.Array]
    stochastic: bool = False
    resize: "Callable[[int], Part] | None" = None
    foreign: Callable[[Params, jax.ShapeDtypeStruct], bool] | None = None


def of(value: Any, what: str) -> Part:
    """The half that a user gave.

    Args:
        value: as `models.own.model` takes it.
        what: its name, for messages.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, Part):
        return value
    if isinstance(value, nn.Module):
        return linen(value, what)
    if isinstance(value, tuple) and len(value) == 2 and all(map(callable, value)):
        return _functions(*value)
    if inspect.isclass(value) and issubclass(value, nn.Module):
        return linen(value(), what)
    if graphs.is_nnx(value) or callable(value):
        return nnx_(value, what)
    raise ValueError(
        f"{what} must be a Flax module, a function from nnx.Rngs to one, or a pair of "
        f"functions (init, apply); got {value!r}."
    )


def shaped(part: Part, key: Key, x: jax.ShapeDtypeStruct, name: str) -> Params:
    """Shapes of the parameters.

    Raises:
        ValueError: with what the network's own code raised on such inputs.
    """
    with jax.numpy_dtype_promotion("standard"):
        try:
            return jax.eval_shape(part.init, key, x)
        except Exception as error:
            raise _refused(name, x, error) from error


def output(
    part: Part, params: Params, x: jax.ShapeDtypeStruct, name: str
) -> jax.ShapeDtypeStruct:
    """Shape of the outputs.

    Raises:
        ValueError: as `shaped`.
    """
    with jax.numpy_dtype_promotion("standard"):
        try:
            return jax.eval_shape(lambda p, x: part.apply(p, x, None), params, x)
        except Exception as error:
            raise _refused(name, x, error) from error


def _refused(name: str, x: jax.ShapeDtypeStruct, error: Exception) -> ValueError:
    if isinstance(error, graphs.Mutable):
        return ValueError(f"{name} {error}")
    reason = " ".join(str(error).split())[:300]
    given = f"{x.dtype} [{', '.join(map(str, x.shape))}]"
    return ValueError(
        f"{name} cannot work on inputs {given} ({type(error).__name__}: {reason})."
    )


def linen(module: nn.Module, what: str, *, method: str | None = None) -> Part:
    """A half that is a linen module, or one method of it."""
    call = getattr(type(module), method or "__call__", None)
    if call is None:
        raise ValueError(f"{what} must be a module that can be called; got {module!r}.")
    known = inspect.signature(call).parameters
    flags = {name: value for name, value in graphs.FLAGS.items() if name in known}

    def variables(key: Key, x: jax.Array) -> Any:
        off = {name: not value for name, value in flags.items()}
        return module.init({"params": key, "dropout": key}, x, method=method, **off)

    def init(key: Key, x: jax.Array) -> Params:
        made = variables(key, x)
        graphs.refuse_mutable([name for name in made if name != "params"])
        return made.get("params", {})

    def apply(params: Params, x: jax.Array, key: Key | None) -> jax.Array:
        on = {name: value == (key is not None) for name, value in flags.items()}
        rngs = None if key is None else {"dropout": key}
        found = module.apply({"params": params}, x, rngs=rngs, method=method, **on)
        return cast(jax.Array, found)

    resize = None
    if method is None and "feature_dim" in type(module).__dataclass_fields__:
        resize = lambda width: linen(module.clone(feature_dim=width), what)
    return Part(init, apply, bool(flags), resize)


def _functions(init: Callable, apply: Callable) -> Part:
    """A half of two functions; dropout where `apply` takes a `key`."""
    keyed = "key" in inspect.signature(apply).parameters

    def called(params: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return apply(params, x, key=key) if keyed else apply(params, x)

    return Part(init, called, keyed)


def nnx_(source: Any, what: str) -> Part:
    """A half that is an nnx module, or what a function makes of random streams."""
    whole = graphs.Graph(source, what)
    resize = None
    if not graphs.is_nnx(source) and "feature_dim" in graphs.parameters(source):
        resize = lambda width: nnx_(
            lambda rngs: source(rngs=rngs, feature_dim=width), what
        )
    return Part(
        lambda key, x: whole.init(key),
        lambda params, x, key: whole.call(params, x, key, lambda module: module),
        whole.stochastic,
        resize,
    )


def halves(source: Any) -> tuple[Part, Part]:
    """The two halves of an nnx module with a method `features` and a part `head`.

    Args:
        source: the module, or a function from random streams to it.

    Raises:
        ValueError: for a module without the two.
    """
    whole = graphs.Graph(source, "The model")
    name = whole.name
    if "head" not in whole.shapes or not callable(
        getattr(whole.module, "features", None)
    ):
        raise ValueError(
            f"{name} must say where its representation ends: give it a method "
            "features(x) and a submodule head, or build the model of two modules, as "
            "fm.model(features, head)."
        )
    header = {"head": whole.shapes["head"]}
    extractor = {key: v for key, v in whole.shapes.items() if key != "head"}
    # What the other half holds is not used; the compiler drops it.
    blank = lambda shapes: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def part(own: dict, other: dict, pick: Callable, unwrap: bool) -> Part:
        def init(key, x):
            made = whole.init(key)
            return made["head"] if unwrap else {name: made[name] for name in own}

        def called(params, others, x, key=None):
            params = {"head": params} if unwrap else params
            return whole.call({**params, **others}, x, key, pick)

        return Part(
            init,
            lambda params, x, key: called(params, blank(other), x, key),
            whole.stochastic,
            foreign=lambda params, x: _depends(called, params, other, x),
        )

    return (
        part(extractor, header, lambda module: module.features, False),
        part(header, extractor, lambda module: module.head, True),
    )


def _depends(
    called: Callable[..., jax.Array], params: Params, other: Params, x: Any
) -> bool:
    """Whether a call makes use of the parameters of the other half, by shapes."""
    with jax.numpy_dtype_promotion("standard"):
        jaxpr = jax.make_jaxpr(called)(params, other, x).jaxpr
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    used |= {id(v) for v in jaxpr.outvars}
    start = len(jax.tree.leaves(params))
    others = jaxpr.invars[start : start + len(jax.tree.leaves(other))]
    return any(id(v) in used for v in others)
