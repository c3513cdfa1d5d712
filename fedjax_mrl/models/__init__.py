"""Networks. One file a family; a name in a module's `__all__` is a model.

Each is a function `name(input_shape, num_classes, *, feature_dim, lowering)`
that returns a `protocol.Model`.
"""

from collections.abc import Callable
from typing import Any

from fedjax_mrl import discovery, references
from fedjax_mrl.protocol import Model


def names() -> list[str]:
    """The names of all models."""
    return list(discovery.find(__name__))


def get(name: str) -> Callable[..., Model]:
    """Returns the constructor of the model `name`, or of one of the user's own.

    Raises:
        ValueError: for an unknown name, with the nearest valid one, or a reference
            (`references`) that leads nowhere.
    """
    if references.is_reference(name):
        return references.load(name)
    return discovery.get(__name__, name, "model")


def build(
    name: str, input_shape: tuple[int, int, int], num_classes: int, **options: Any
) -> Model:
    """Builds the model `name` for images [H, W, C] and L classes."""
    return get(name)(tuple(input_shape), num_classes, **options)
