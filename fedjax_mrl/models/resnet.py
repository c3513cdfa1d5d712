"""A residual network with group normalisation: a stem and three blocks.

Seven 3x3 convolutions, two of 1x1 on the shortcuts, and one linear layer.

Group normalisation keeps no running statistics, so nothing about the data of a
client is hidden in a buffer and `vmap` over clients needs no special case.

Reference:
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    https://arxiv.org/abs/1512.03385
    Wu and He, Group Normalization, ECCV 2018. https://arxiv.org/abs/1803.08494
"""

import jax
from flax import linen as nn

from fedjax_mrl.models import layers
from fedjax_mrl.ops import conv
from fedjax_mrl.protocol import Model

__all__ = ["resnet8"]


class _Block(nn.Module):
    width: int
    stride: int
    lowering: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        convolve = lambda name, size, stride: layers.Conv(
            self.width, size, stride, size // 2, self.lowering, name=name
        )
        y = jax.nn.relu(nn.GroupNorm(8, name="norm1")(x))
        # The shortcut changes the number of channels, or only the resolution.
        if x.shape[-1] != self.width or self.stride != 1:
            x = convolve("shortcut", 1, self.stride)(y)
        y = convolve("conv1", 3, self.stride)(y)
        y = jax.nn.relu(nn.GroupNorm(8, name="norm2")(y))
        return x + convolve("conv2", 3, 1)(y)


class _Extractor(nn.Module):
    feature_dim: int
    lowering: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = layers.Conv(16, 3, 1, 1, self.lowering, name="stem")(x)
        for i, (width, stride) in enumerate(((16, 1), (32, 2), (64, 2))):
            x = _Block(width, stride, self.lowering, name=f"block{i + 1}")(x)
        x = jax.nn.relu(nn.GroupNorm(8, name="norm")(x)).mean(axis=(1, 2))
        return jax.nn.relu(layers.Linear(self.feature_dim, name="fc")(x))


def resnet8(input_shape, num_classes, *, feature_dim=500, lowering="auto") -> Model:
    """Builds the residual network: stem, three blocks, mean, FC `feature_dim`."""
    layers.require_image("resnet8", input_shape, 4)
    extractor = _Extractor(feature_dim, conv.resolve(lowering))
    return layers.model("resnet8", extractor, input_shape, num_classes, feature_dim)
