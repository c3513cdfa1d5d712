"""Users' own networks as models: Flax modules of both kinds, and plain functions.

`architecture` takes whatever stands in `models=` and says how a `protocol.Model` is
made of it once the data are known.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_mrl import models, references, rng
from fedjax_mrl.models import graphs, layers, parts
from fedjax_mrl.models.parts import Part
from fedjax_mrl.protocol import Model, Network


class Sample(NamedTuple):
    """One prepared input without its batch axis, and the classes to tell apart."""

    shape: tuple[int, ...]
    dtype: Any
    num_classes: int  # L

    def batch(self, size: int = 1) -> jax.ShapeDtypeStruct:
        """Shape and type of a minibatch."""
        return jax.ShapeDtypeStruct((size, *self.shape), self.dtype)


class Architecture(NamedTuple):
    """One entry of `models`.

    Attributes:
        name: short and fit for tables and files.
        build: sample, width, lowering of convolutions -> model. Own networks keep the
            width they are made with where `width` is None.
        own_width: whether a client's private model has a width of its own, and not the
            configuration's `feature_dim`.
    """

    name: str
    build: Callable[[Sample, int | None, str], Model]
    own_width: bool


class Blueprint(NamedTuple):
    """A network of the user's own before the data are known; `model` makes it."""

    name: str
    features: Part
    head: Part | None  # None is a linear layer
    feature_dim: int | None  # None: as `features` shows
    source: Any = None  # of what it was made, to tell equal ones


def model(
    features: Any,
    head: Any = None,
    *,
    feature_dim: int | None = None,
    name: str | None = None,
) -> Blueprint:
    """Makes a client's network of a feature extractor and a head.

    Each of the two is one of

    - a Flax linen module;
    - a Flax nnx module, whose parameters are then what all its clients begin with; or
      a function from `nnx.Rngs` to one, which draws them from the seed;
    - a pair of functions `(init, apply)`: `init(key, x) -> parameters` and
      `apply(parameters, x)`.

    Dropout works: a module whose call takes `train`, `training` or `deterministic` is
    told when it trains, and linen's `rngs={"dropout": ...}` are drawn for each client
    and step. Running statistics, as BatchNorm keeps them, are refused: whether they are
    private or shared, no method says. Use nn.GroupNorm or nn.LayerNorm.

    Args:
        features: from inputs [B, ...] to a representation [B, D].
        head: from a representation to logits [B, L]; by default one linear layer.
        feature_dim: D; by default what `features` yields. A linen module with a field
            `feature_dim`, or an nnx class or function of (rngs, feature_dim=32), is
            also made at the width that a method asks of the shared model.
        name: for tables and files; by default the class of `features`.

    Returns:
        What `Federation(models=[...], shared_model=...)` takes.

    Raises:
        ValueError: for something else, here or as soon as the data are known.

    Example:
        >>> import fedjax_mrl as fm
        >>> from flax import linen as nn
        >>> class Narrow(nn.Module):
        ...     feature_dim: int = 16
        ...     @nn.compact
        ...     def __call__(self, x, train: bool):
        ...         x = nn.relu(nn.Dense(self.feature_dim)(x.reshape(len(x), -1)))
        ...         return nn.Dropout(0.2, deterministic=not train)(x)
        >>> narrow = fm.model(Narrow())
        >>> federation = fm.Federation(
        ...     algorithm="fml", models=[narrow, "mlp"], shared_model=narrow,
        ...     num_clients=4, partition="iid", rounds=1,
        ... )
        >>> [group.name for group in federation.groups]
        ['Narrow', 'mlp']
    """
    made = parts.of(features, "features")
    known = name or _class_name(features) or "own"
    second = None if head is None else parts.of(head, "head")
    return Blueprint(str(known), made, second, feature_dim, (features, head, name))


def architecture(value: Any) -> Architecture:
    """Says how models are made of a value.

    Args:
        value: a name or a reference (`references`); a `protocol.Model`; what `model`
            returns; a linen module with methods `features` and `head`, or one with a
            field `feature_dim` alone, on which a linear head is put; an nnx module
            with a method `features` and a submodule `head`; a class of either, made
            with those of `num_classes`, `feature_dim` that it takes; or a function
            `(input_shape, num_classes, *, feature_dim)` to a model.

    Raises:
        ValueError: for anything else; says what would do.
    """
    if isinstance(value, str):
        if not references.is_reference(value):
            return _built_in(value)
        found = architecture(models.get(value))
        return found._replace(name=references.short(value))
    if isinstance(value, Model):
        return Architecture(value.name, functools.partial(_as_given, value), True)
    if isinstance(value, Blueprint):
        return Architecture(value.name, functools.partial(_assemble, value), True)
    if _is_extractor(value):
        return architecture(model(value))
    if _is_linen_class(value) and _is_extractor_class(value):
        return architecture(model(_made(value)))
    if isinstance(value, nn.Module) or graphs.is_nnx(value):
        return architecture(_split(value))
    if graphs.is_nnx_class(value) or _is_linen_class(value):
        fixed = "feature_dim" not in graphs.parameters(value)
        return Architecture(value.__name__, functools.partial(_of_class, value), fixed)
    if callable(value):
        name = getattr(value, "__name__", type(value).__name__).strip("<>")
        fixed = "feature_dim" not in graphs.parameters(value)
        return Architecture(name, functools.partial(_called, value, name), fixed)
    raise ValueError(
        "A model must be a name, FILE.py:NAME, a Flax module with methods features and "
        "head, fm.model(features, head), a protocol.Model, or a function of "
        f"(input_shape, num_classes, *, feature_dim); got {value!r}."
    )


def _is_extractor(value: Any) -> bool:
    """Whether a linen module's field `feature_dim` says that it is an extractor."""
    return isinstance(value, nn.Module) and _is_extractor_class(type(value))


def _is_extractor_class(kind: type) -> bool:
    halves = all(callable(getattr(kind, half, None)) for half in ("features", "head"))
    return not halves and "feature_dim" in graphs.parameters(kind)


def _made(kind: type) -> Any:
    """A module of a class with the defaults of its fields.

    Raises:
        ValueError: if a field has none.
    """
    try:
        return kind()
    except TypeError as error:
        raise ValueError(
            f"{kind.__name__} must be made before it is given, since a field has no "
            f"default ({error}): write net = fm.model({kind.__name__}(...)) and give "
            "that, on the command line FILE.py:net."
        ) from None


def _is_linen_class(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _class_name(value: Any) -> str | None:
    if isinstance(value, tuple):
        return None
    if inspect.isfunction(value) or inspect.isclass(value):
        return None if value.__name__ == "<lambda>" else value.__name__
    return type(value).__name__


def _built_in(name: str) -> Architecture:
    make = models.get(name)

    def build(sample: Sample, width: int | None, lowering: str) -> Model:
        if not jnp.issubdtype(sample.dtype, jnp.floating):
            raise ValueError(
                f"{name} needs images or features, but the data are tokens "
                f"[{', '.join(map(str, sample.shape))}]. If that is a table of whole "
                "numbers, give x.astype(float); else give models and shared_model of "
                "your own that embed tokens, as fm.model(features)."
            )
        wide = {} if width is None else {"feature_dim": width}
        return make(sample.shape, sample.num_classes, lowering=lowering, **wide)

    return Architecture(name, build, False)


def _as_given(value: Model, sample: Sample, width: int | None, lowering: str) -> Model:
    del lowering
    _require_width(value.name, value.feature_dim, width)
    return _checked(value, sample)


def _called(
    make: Callable, name: str, sample: Sample, width: int | None, lowering: str
) -> Model:
    """What a user's function makes, given those of the options that it takes."""
    known = graphs.parameters(make)
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    options: dict[str, Any] = {"lowering": lowering}
    if width is not None:
        options["feature_dim"] = width
    options = {key: v for key, v in options.items() if anything or key in known}
    takes = "(input_shape, num_classes) and such options as it has"
    given = sample.shape, sample.num_classes
    made = architecture(references.call(make, takes, *given, **options))
    return made.build(sample, width, lowering)._replace(name=name)


def _of_class(kind: type, sample: Sample, width: int | None, lowering: str) -> Model:
    """A model of a Flax class, made with those of the sizes that it takes."""
    known = graphs.parameters(kind)
    sizes = {"num_classes": sample.num_classes}
    if width is not None:
        sizes["feature_dim"] = width
    sizes = {key: value for key, value in sizes.items() if key in known}
    if graphs.is_nnx_class(kind):
        features, head = parts.halves(lambda rngs: kind(**sizes, rngs=rngs))
        blueprint = Blueprint(kind.__name__, features, head, None)
    else:
        blueprint = _split(kind(**sizes))
    return _assemble(blueprint, sample, width, lowering)


def _split(module: Any) -> Blueprint:
    """The two halves of a module that has both."""
    name = type(module).__name__
    if graphs.is_nnx(module):
        features, head = parts.halves(module)
        return Blueprint(name, features, head, None)
    if not all(callable(getattr(module, half, None)) for half in ("features", "head")):
        raise ValueError(
            f"{name} must say where its representation ends: give it methods "
            "features(x) and head(h), or a field feature_dim if its output is the "
            f"representation, or write net = fm.model({name}(...)), whose head is then "
            "one linear layer, and give that (on the command line FILE.py:net)."
        )
    features = parts.linen(module, "features", method="features")
    return Blueprint(name, features, parts.linen(module, "head", method="head"), None)


def _assemble(
    blueprint: Blueprint, sample: Sample, width: int | None, lowering: str
) -> Model:
    """Makes the model; its width is the blueprint's where none is asked for."""
    del lowering
    features = blueprint.features
    if width is not None and features.resize is not None:
        features = features.resize(width)
    elif width is not None and blueprint.feature_dim is not None:
        _require_width(blueprint.name, blueprint.feature_dim, width)
    x = sample.batch(2)
    key = rng.key(0, rng.Purpose.CLIENT_INIT)
    extractor = parts.shaped(features, key, x, blueprint.name)
    _require_float32(blueprint.name, extractor)
    shown = parts.output(features, extractor, x, f"features of {blueprint.name}")
    shape = getattr(shown, "shape", ())
    found = shape[-1] if len(shape) == 2 else 0
    if len(shape) != 2 or shape[0] != 2 or not found:
        raise ValueError(
            f"features of {blueprint.name} must map inputs [B, "
            f"{', '.join(map(str, sample.shape))}] to a representation [B, D], but "
            f"yields {_shape(shape) if shape else type(shown).__name__}; pool or "
            "reshape it to one row an example."
        )
    _require_width(blueprint.name, found, width)
    if blueprint.feature_dim not in (None, found) and width is None:
        raise ValueError(
            f"feature_dim of {blueprint.name} must be the width that features yields, "
            f"{found}; got {blueprint.feature_dim}. Leave it out."
        )
    head = blueprint.head or parts.linen(layers.Linear(sample.num_classes), "head")
    _require_apart(blueprint, extractor, head, sample, found)

    def init(key: jax.Array) -> Network:
        one, other = jax.random.split(key)
        x, h = jnp.zeros(sample.batch().shape, sample.dtype), jnp.zeros((1, found))
        return Network(features.init(one, x), head.init(other, h))

    def trained(key: jax.Array) -> Model:
        one, other = jax.random.split(key)
        return made._replace(
            features=lambda p, x: features.apply(p, x, one),
            head=lambda p, h: head.apply(p, h, other),
        )

    made = Model(
        blueprint.name,
        init,
        lambda p, x: features.apply(p, x, None),
        lambda p, h: head.apply(p, h, None),
        found,
        sample.num_classes,
        trained if features.stochastic or head.stochastic else None,
    )
    return _checked(made, sample)


def _require_apart(
    blueprint: Blueprint, extractor: Any, head: Part, sample: Sample, width: int
) -> None:
    """Refuses one module of both halves that have a layer in common."""
    if blueprint.source is not None or blueprint.head is None:
        return  # two modules
    h = jax.ShapeDtypeStruct((2, width), jnp.float32)
    header = parts.shaped(head, rng.key(0, rng.Purpose.CLIENT_INIT), h, "head")
    features = blueprint.features
    if features.foreign is None or head.foreign is None:  # linen: named by the layer
        common = bool(set(extractor) & set(header))
    else:
        x = sample.batch(2)
        common = features.foreign(extractor, x) or head.foreign(header, h)
    if common:
        raise ValueError(
            f"{blueprint.name} must have no layer in both features and head: only one "
            "half would be shared. Give each its own."
        )


def _checked(made: Model, sample: Sample) -> Model:
    """The model, if it maps the sample to as many logits as there are classes."""
    if made.num_classes != sample.num_classes:
        raise ValueError(
            f"{made.name} must tell {sample.num_classes} classes apart, as many as the "
            f"data have; it has num_classes {made.num_classes}."
        )

    def logits(key: jax.Array, x: jax.Array) -> jax.Array:
        return made.logits(made.init(key), x)

    must = (
        f"head of {made.name} must map a representation [B, {made.feature_dim}] to "
        f"logits [B, {sample.num_classes}], one a class, but"
    )
    with jax.numpy_dtype_promotion("standard"):
        key = rng.key(0, rng.Purpose.CLIENT_INIT)
        try:
            found = jax.eval_shape(logits, key, sample.batch(2))
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            text = f"{must} fails ({type(error).__name__}: {reason})."
            raise ValueError(text) from error
        network = jax.eval_shape(made.init, key)
    shape = getattr(found, "shape", None)
    if shape != (2, sample.num_classes):
        got = type(found).__name__ if shape is None else f"{_shape(shape)} for B = 2"
        raise ValueError(f"{must} yields {got}.")
    _require_float32(made.name, network)
    return made


def _require_float32(whose: str, weights: Any) -> None:
    """Refuses weights of other types: averages and norms would lose their digits."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        if floating and leaf.dtype != jnp.float32:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"All weights of {whose} must be float32, but {name} is "
                f"{leaf.dtype}. Leave param_dtype out; what is computed may be in "
                "bfloat16, as by Flax's dtype or by precision."
            )


def _require_width(name: str, own: int, width: int | None) -> None:
    if width is not None and own != width:
        raise ValueError(
            f"A representation of width {width} is asked of {name}, which has {own}. "
            f"Set the method's width to {own} (shared_dim={own} for FedMRL, "
            f"feature_dim={own} else), or give the module a field feature_dim, so that "
            "it can be made at any width."
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
