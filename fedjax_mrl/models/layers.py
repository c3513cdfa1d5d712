"""Layers shared by the networks, and PyTorch's default initialisation."""

import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_mrl.ops import conv, matmul
from fedjax_mrl.protocol import Key, Model, Network, Params


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """Uniform in +-1/sqrt(fan_in): PyTorch's default, weights and biases alike."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """y = x kernel + bias; kernel [in, out]."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = fan_in_uniform(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.width))
        bias = self.param("bias", init, (self.width,))
        return linear({"kernel": kernel, "bias": bias}, x)


def linear(params: Params, x: jax.Array) -> jax.Array:
    """A linear layer [B, in] -> [B, out] on plain parameters."""
    return matmul.matmul(x, params["kernel"]) + params["bias"][None, :]


def init_linear(key: Key, width_in: int, width_out: int) -> Params:
    """Parameters of `linear`, initialised as PyTorch would."""
    return Linear(width_out).init(key, jnp.zeros((1, width_in), jnp.float32))["params"]


class Conv(nn.Module):
    """Convolution with bias; kernel [k, k, in, out]."""

    width: int
    size: int
    stride: int = 1
    padding: int = 0
    lowering: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv.conv(
            x,
            *_kernel_and_bias(self, x),
            stride=self.stride,
            padding=self.padding,
            lowering=self.lowering,
        )


class ConvReluPool(nn.Module):
    """Unpadded convolution, ReLU, 2x2 max-pooling; kernel [k, k, in, out]."""

    width: int
    size: int
    lowering: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv.conv_relu_pool(x, *_kernel_and_bias(self, x), self.lowering)


def _kernel_and_bias(layer: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    fan_in = layer.size**2 * x.shape[-1]
    shape = (layer.size, layer.size, x.shape[-1], layer.width)
    kernel = layer.param("kernel", fan_in_uniform(fan_in), shape)
    return kernel, layer.param("bias", fan_in_uniform(fan_in), (layer.width,))


def model(
    name: str,
    extractor: nn.Module,
    input_shape: tuple[int, int, int],
    num_classes: int,
    feature_dim: int,
) -> Model:
    """Puts a linear header on a Flax extractor and makes a `Model` of the two.

    Args:
        name: how the model is called in tables and errors.
        extractor: module from images [B, H, W, C] to [B, D].
        input_shape: (H, W, C).
        num_classes: L.
        feature_dim: D.
    """
    if num_classes < 2 or feature_dim < 1:
        raise ValueError(
            f"{name} needs at least 2 classes and a representation of width 1; got "
            f"num_classes={num_classes}, feature_dim={feature_dim}."
        )
    header = Linear(num_classes)

    def init(key: jax.Array) -> Network:
        extractor_key, header_key = jax.random.split(key)
        return Network(
            extractor.init(extractor_key, jnp.zeros((1, *input_shape), jnp.float32))[
                "params"
            ],
            header.init(header_key, jnp.zeros((1, feature_dim), jnp.float32))["params"],
        )

    return Model(
        name=name,
        init=init,
        features=_applied(extractor),
        head=_applied(header),
        feature_dim=feature_dim,
        num_classes=num_classes,
    )


def _applied(module: nn.Module) -> Callable[[Params, jax.Array], jax.Array]:
    """The function from parameters and x to the one output of a module."""
    return lambda params, x: cast(jax.Array, module.apply({"params": params}, x))


def require_image(name: str, input_shape: tuple[int, int, int], smallest: int) -> None:
    """Checks that images are large enough for a network.

    Raises:
        ValueError: naming the smallest side that fits.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"{name} needs images of shape (height, width, channels); got "
            f"{tuple(input_shape)}. For other data give models and shared_model that "
            "fit: mlp takes features of any shape, fm.model(features) your own network."
        )
    if min(input_shape[:2]) < smallest:
        raise ValueError(
            f"{name} needs images of at least {smallest}x{smallest} pixels; got "
            f"{input_shape[0]}x{input_shape[1]}. Choose a smaller network (mlp fits "
            "any size) or enlarge the images."
        )
