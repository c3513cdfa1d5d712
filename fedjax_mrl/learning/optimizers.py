"""Optimizers for one network at a time, and their steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedjax_mrl.protocol import Tree


def sgd(
    learning_rate: float,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-3,
    clip_norm: float = 50.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD as the authors' code runs it: clip, then decay, then momentum.

    Weight decay covers weights and biases and comes after clipping; momentum has
    no dampening and is not Nesterov's. `update` takes another `learning_rate` as an
    extra argument, which may be traced.

    Args:
        learning_rate: step size, > 0 or 0 for a fixed point.
        momentum: in [0, 1); 0 is plain SGD.
        weight_decay: coefficient of the parameters in the gradient; 0 is none.
        clip_norm: largest gradient norm of the network; 0 is no clipping.

    Raises:
        ValueError: for a value out of its range.
    """
    for name, value, valid in (
        ("learning_rate", learning_rate, learning_rate >= 0),
        ("momentum", momentum, 0 <= momentum < 1),
        ("weight_decay", weight_decay, weight_decay >= 0),
        ("clip_norm", clip_norm, clip_norm >= 0),
    ):
        if not valid:
            raise ValueError(
                f"{name} must be at least 0{' and below 1' * (name == 'momentum')}; "
                f"got {value}."
            )
    direction = optax.chain(
        clip_by_norm(clip_norm) if clip_norm else optax.identity(),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.trace(decay=momentum) if momentum else optax.identity(),
    )
    default = learning_rate

    def update(updates, state, params=None, *, learning_rate=None, **extra):
        del extra
        updates, state = direction.update(updates, state, params)
        rate = default if learning_rate is None else learning_rate
        step = lambda leaf: leaf * -jnp.asarray(rate, leaf.dtype)
        return jax.tree.map(step, updates), state

    return optax.GradientTransformationExtraArgs(direction.init, update)


def adam(learning_rate: float) -> optax.GradientTransformation:
    """Adam of optax, for code that does not promote types.

    It raises a float to the number of steps, which is an integer.
    """
    plain = optax.adam(learning_rate)

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return plain.update(updates, state, params)

    return optax.GradientTransformation(plain.init, update)


def step(
    update: Callable[..., tuple[Tree, Tree]], gradient: Tree, state: Tree, params: Tree
) -> tuple[Tree, Tree]:
    """Takes one step.

    Args:
        update: of an optax transformation.
        gradient: like `params`.
        state: of the optimizer.
        params: a pytree.

    Returns:
        The new parameters and the new state.
    """
    updates, state = update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def clip_by_norm(clip_norm: float) -> optax.GradientTransformation:
    """Scales the gradient by min(1, clip_norm / (norm + 1e-6)).

    optax.clip_by_global_norm lacks PyTorch's 1e-6, which a float64 comparison
    with the authors' code shows.
    """

    def update(updates, state, params=None):
        del params
        norm = optax.tree.norm(updates)
        scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
        return jax.tree.map(lambda g: g * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
