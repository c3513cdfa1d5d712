"""Checks of models and hyper-parameters, made when a method or a client is built."""

import jax

from fedjax_mrl import rng, tree
from fedjax_mrl.protocol import Model, Setup
from fedjax_mrl.rng import Purpose


def require_equal(method: str, model: Model, averaged: Model) -> None:
    """Checks that the parameters of a client's model can be averaged with others.

    Args:
        method: how the method is called in the error.
        model: the client's.
        averaged: the one that the server averages.

    Raises:
        ValueError: if names or shapes of the parameters differ.
    """
    with jax.numpy_dtype_promotion("standard"):  # shapes, whatever the precision
        key = rng.key(0, Purpose.CLIENT_INIT)
        own, common = (jax.eval_shape(m.init, key) for m in (model, averaged))
    if own != common:
        raise ValueError(
            f"{method} averages whole models, so every client must have the "
            f"architecture of the shared model {averaged.name} "
            f"({tree.num_parameters(common)} parameters); got {model.name} "
            f"({tree.num_parameters(own)} parameters). Set --models and "
            "--shared-model to one and the same network, as in --models cnn1 "
            "--shared-model cnn1."
        )


def require_classes(model: Model, setup: Setup) -> None:
    """Checks that a client's classes are those of the others.

    Raises:
        ValueError: if the model has another number of them.
    """
    if model.num_classes != setup.num_classes:
        raise ValueError(
            "What clients upload is merged class by class, so all models need the "
            f"{setup.num_classes} classes of the federation; {model.name} has "
            f"{model.num_classes}. Give all clients one task."
        )


def require_width(model: Model, setup: Setup) -> None:
    """Checks that a client's classes and representations match those of the others.

    Raises:
        ValueError: if the model has another number of classes or another width.
    """
    require_classes(model, setup)
    if model.feature_dim != setup.feature_dim:
        raise ValueError(
            "Representations of all clients must have one width, so all models need "
            f"feature_dim {setup.feature_dim}; {model.name} has {model.feature_dim}. "
            "Build every model with the same --feature-dim."
        )


def require_header(model: Model, setup: Setup) -> None:
    """Checks that a client can put the header of the shared model on its own features.

    Raises:
        ValueError: if the model has other classes, another width or another header.
    """
    require_width(model, setup)
    shared = setup.shared(setup.feature_dim)
    key = rng.key(0, Purpose.CLIENT_INIT)
    with jax.numpy_dtype_promotion("standard"):  # shapes, whatever the precision
        own, common = (jax.eval_shape(m.init, key).header for m in (model, shared))
    if own != common:
        raise ValueError(
            "One header goes to all clients, so every model needs one like that of "
            f"the shared model {shared.name}, with the same layers and shapes; that of "
            f"{model.name} differs. Give features alone, as fm.model(...), which adds "
            "a linear header, or a shared model with the same header."
        )


def require_at_least(advice: str = "", /, **bounds: tuple[float, float]) -> None:
    """Checks hyper-parameters by name.

    Args:
        advice: a last sentence for the error.
        **bounds: name -> (value, smallest valid value).

    Raises:
        ValueError: for the first one that is too small.
    """
    for name, (value, smallest) in bounds.items():
        if not value >= smallest:
            message = f"{name} must be at least {smallest}; got {value}. {advice}"
            raise ValueError(message.rstrip())


def require_whole(advice: str = "", /, **numbers: float) -> None:
    """Checks counts by name.

    Args:
        advice: a last sentence for the error.
        **numbers: name -> value.

    Raises:
        ValueError: for the first one that is negative or no whole number.
    """
    for name, value in numbers.items():
        if value < 0 or value != int(value):
            message = f"{name} must be a whole number, at least 0; got {value}."
            raise ValueError(f"{message} {advice}".rstrip())
