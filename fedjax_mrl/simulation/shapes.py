"""Shapes of what an algorithm holds and sends, without computing any of it."""

from typing import NamedTuple

import jax

from fedjax_mrl import rng
from fedjax_mrl.protocol import Algorithm, Model, Tree
from fedjax_mrl.rng import Purpose


class Shapes(NamedTuple):
    """Trees of `jax.ShapeDtypeStruct`."""

    key: Tree  # of a typed key, to ask for further shapes
    server: Tree
    broadcast: Tree
    private: Tree  # state of a client with the model

    @property
    def pair(self) -> tuple[Tree, Tree]:
        """A client's private state, and its copy of a broadcast."""
        return self.private, self.broadcast


def of(algorithm: Algorithm, model: Model) -> Shapes:
    """The shapes of an algorithm with clients of one model.

    Raises:
        ValueError: if the algorithm cannot work with the model.
    """
    key, server, broadcast = of_server(algorithm)
    private = jax.eval_shape(algorithm.client(model).init, key)
    return Shapes(key, server, broadcast, private)


def of_server(algorithm: Algorithm) -> tuple[Tree, Tree, Tree]:
    """The shapes of a key, of the server's state and of a broadcast."""
    key = jax.eval_shape(lambda: rng.key(0, Purpose.CLIENT_INIT))
    server = jax.eval_shape(algorithm.server.init, key)
    return key, server, jax.eval_shape(algorithm.server.broadcast, server)
