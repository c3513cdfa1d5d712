"""The five convolutional networks of the FedMRL paper.

conv 5x5 - ReLU - pool - conv 5x5 - ReLU - pool - FC1 - ReLU - FC2 - ReLU, which
is the representation, then a linear header. CNN-1 to CNN-5 differ in the second
convolution and in FC1; the small shared networks narrow FC2 (`feature_dim`).

Reference:
    Yi et al., Federated Model Heterogeneous Matryoshka Representation Learning,
    NeurIPS 2024. https://arxiv.org/abs/2406.00488
"""

import jax
from flax import linen as nn

from fedjax_mrl.models import layers
from fedjax_mrl.ops import conv
from fedjax_mrl.protocol import Model

__all__ = ["cnn1", "cnn2", "cnn3", "cnn4", "cnn5"]

# Below 16x16 pixels nothing is left after the second pooling.
_SMALLEST = 16


class _Extractor(nn.Module):
    channels: tuple[int, int]
    hidden: int
    feature_dim: int
    lowering: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = self.channels
        x = layers.ConvReluPool(first, 5, self.lowering, name="conv1")(x)
        x = layers.ConvReluPool(second, 5, self.lowering, name="conv2")(x)
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(layers.Linear(self.hidden, name="fc1")(x))
        return jax.nn.relu(layers.Linear(self.feature_dim, name="fc2")(x))


def cnn(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    channels: tuple[int, int],
    hidden: int,
    feature_dim: int,
    lowering: str = "auto",
) -> Model:
    """Builds a network of this family.

    Args:
        name: how it is called.
        input_shape: (H, W, C), at least 16x16 pixels.
        num_classes: L.
        channels: filters of the two convolutions.
        hidden: width of FC1.
        feature_dim: width of FC2, the representation.
        lowering: how convolutions are computed, see `conv`.

    Raises:
        ValueError: if the image is too small or a size is not positive.
    """
    layers.require_image(name, input_shape, _SMALLEST)
    extractor = _Extractor(channels, hidden, feature_dim, conv.resolve(lowering))
    return layers.model(name, extractor, input_shape, num_classes, feature_dim)


def cnn1(input_shape, num_classes, *, feature_dim=500, lowering="auto") -> Model:
    """CNN-1: 32 filters, FC1 2000; 2,621,558 parameters for CIFAR-10."""
    sizes = {"channels": (16, 32), "hidden": 2000, "feature_dim": feature_dim}
    return cnn("cnn1", input_shape, num_classes, lowering=lowering, **sizes)


def cnn2(input_shape, num_classes, *, feature_dim=500, lowering="auto") -> Model:
    """CNN-2: 16 filters, FC1 2000; 1,815,142 parameters for CIFAR-10."""
    sizes = {"channels": (16, 16), "hidden": 2000, "feature_dim": feature_dim}
    return cnn("cnn2", input_shape, num_classes, lowering=lowering, **sizes)


def cnn3(input_shape, num_classes, *, feature_dim=500, lowering="auto") -> Model:
    """CNN-3: 32 filters, FC1 1000; 1,320,558 parameters for CIFAR-10."""
    sizes = {"channels": (16, 32), "hidden": 1000, "feature_dim": feature_dim}
    return cnn("cnn3", input_shape, num_classes, lowering=lowering, **sizes)


def cnn4(input_shape, num_classes, *, feature_dim=500, lowering="auto") -> Model:
    """CNN-4: 32 filters, FC1 800; 1,060,358 parameters for CIFAR-10."""
    sizes = {"channels": (16, 32), "hidden": 800, "feature_dim": feature_dim}
    return cnn("cnn4", input_shape, num_classes, lowering=lowering, **sizes)


def cnn5(input_shape, num_classes, *, feature_dim=500, lowering="auto") -> Model:
    """CNN-5: 32 filters, FC1 500; 670,058 parameters for CIFAR-10."""
    sizes = {"channels": (16, 32), "hidden": 500, "feature_dim": feature_dim}
    return cnn("cnn5", input_shape, num_classes, lowering=lowering, **sizes)
