"""Whether two models are interchangeable."""

import jax

from fedjax_mrl import rng, tree
from fedjax_mrl.protocol import Model
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
