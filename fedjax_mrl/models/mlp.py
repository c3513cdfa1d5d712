"""A perceptron with two hidden layers, for images of any size and for features."""

import jax
from flax import linen as nn

from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Model

__all__ = ["mlp"]


class _Extractor(nn.Module):
    hidden: int
    feature_dim: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(layers.Linear(self.hidden, name="fc1")(x))
        return jax.nn.relu(layers.Linear(self.feature_dim, name="fc2")(x))


def mlp(
    input_shape, num_classes, *, feature_dim=500, hidden=512, lowering="auto"
) -> Model:
    """MLP: inputs - `hidden` - `feature_dim`, ReLU after each; for any shape."""
    del lowering  # no convolution
    if not input_shape or min(input_shape) < 1:
        raise ValueError(
            f"mlp needs inputs of at least one number; got the shape {input_shape}."
        )
    extractor = _Extractor(hidden, feature_dim)
    return layers.model("mlp", extractor, input_shape, num_classes, feature_dim)
