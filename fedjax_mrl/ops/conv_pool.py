"""Convolution, ReLU and 2x2 pooling in one, a few images at a time.

The four positions that are pooled together see one (k + 1) x (k + 1) window. So windows
are taken with stride 2 and multiplied by the kernel at its four offsets, or at two with
rows by `winograd`; the maximum runs over adjacent blocks of columns. What is between
the products and the pooled result is as large as a block of images, not a minibatch.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_mrl.ops import backend, matmul, winograd


@dataclasses.dataclass(frozen=True)
class Form:
    """How it is computed.

    Attributes:
        images: at a time, at most.
        size: k of the kernel, odd; None if windows [B, H', W', K] are given for images.
        winograd: rows by F(2, k), which takes fewer multiplications.
    """

    images: int
    size: int | None
    winograd: bool = False

    @property
    def out(self) -> np.ndarray:
        """What makes rows of results of the n products [rows, n]."""
        return winograd.matrices(self.size).out if self.winograd else np.ones((1, 1))

    def factors(self, x: jax.Array) -> list[jax.Array]:
        """The n left factors [b, H', W', K] of the products."""
        if self.size is None:
            return [x]
        return (
            winograd.windows(x, self.size) if self.winograd else [windows(x, self.size)]
        )

    def transposed(self, factors: list[jax.Array], x: jax.Array) -> jax.Array:
        """The gradient of `x` by that of `factors(x)`."""
        if self.size is not None and self.winograd:
            return winograd.windows_transposed(factors, x, self.size)
        return jax.vjp(self.factors, x)[1](factors)[0]


def conv_relu_pool(
    form: Form, x: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """relu(max(x * kernel) + bias), the maximum over 2x2 positions.

    Args:
        form: how.
        x: [B, H, W, C], or as the form says.
        kernel: [k, k, C, O].
        bias: [O].

    Returns:
        [B, (H - k + 1) // 2, (W - k + 1) // 2, O].
    """
    turned = winograd.kernels(kernel) if form.winograd else _four_offsets(kernel)[None]
    return _products_max_relu(form, x, turned, bias)


def windows(x: jax.Array, size: int) -> jax.Array:
    """Windows of size+1 at stride 2: [B, H', W', (size + 1)**2 * C].

    Pixels are first gathered in 2x2 cells, so that a window is (size + 1) / 2
    cells wide and high and every copy moves runs of 4 C numbers.
    """
    batch, height, width, channels = x.shape
    rows, columns = (height - size + 1) // 2, (width - size + 1) // 2
    cells = (size + 1) // 2
    x = x[:, : 2 * (rows + cells - 1), : 2 * (columns + cells - 1)]
    x = x.reshape(batch, rows + cells - 1, 2, columns + cells - 1, 2, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, rows + cells - 1, columns + cells - 1, 4 * channels)
    x = winograd.across(x, columns)
    return jnp.concatenate([x[:, i : i + rows] for i in range(cells)], axis=-1)


def _four_offsets(kernel: jax.Array) -> jax.Array:
    """The kernel at its four offsets in the larger window: [(k+1)**2 C, 4 O]."""
    size, _, channels, out = kernel.shape
    placed = jnp.stack(
        [
            jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
            for i in (0, 1)
            for j in (0, 1)
        ],
        axis=3,
    )
    cells = (size + 1) // 2  # the order of rows is that of `windows`
    placed = placed.reshape(cells, 2, cells, 2, channels, 4 * out)
    placed = placed.transpose(0, 2, 1, 3, 4, 5)
    return placed.reshape((size + 1) ** 2 * channels, 4 * out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _products_max_relu(
    form: Form, x: jax.Array, w: jax.Array, bias: jax.Array
) -> jax.Array:
    """relu of the largest of four, plus bias.

    Args:
        form: see there; I rows of results come of n products.
        x: [B, ...], whose factors are n times [B, H', W', K].
        w: right factors [n, K, (4 / I) O].
        bias: [O].

    Returns:
        [B, H', W', O].
    """
    return _forward(form, x, w, bias)[0]


def _forward(form, x, w, bias):
    channels = bias.shape[0]

    def block(images):
        factors = form.factors(images)
        found = [
            matmul.dot(factor.reshape(-1, w.shape[1]), each)
            for factor, each in zip(factors, w, strict=True)
        ]
        rows = [winograd.mix(weights, found) for weights in form.out]
        a, b, c, d = (
            row[:, start : start + channels]
            for row in rows
            for start in range(0, w.shape[2], channels)
        )
        highest = jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))
        pooled = jax.nn.relu(highest + bias[None, :])
        first = jnp.where(
            a == highest, 0, jnp.where(b == highest, 1, jnp.where(c == highest, 2, 3))
        )
        # One byte a number says where the gradient goes; 4 is nowhere.
        winner = jnp.where(pooled > 0, first, 4).astype(jnp.int8)
        shape = (*factors[0].shape[:-1], channels)
        return pooled.reshape(shape), winner.reshape(shape)

    pooled, winner = _join(lax.map(block, _cut(form.images, x)), x.shape[0])
    return pooled, (x, w, winner)


def _backward(form, residuals, g):
    x, w, winner = residuals
    channels = g.shape[-1]
    number = w.shape[2] // channels  # of offsets in a row of results
    zero = jnp.zeros((), g.dtype)

    def products(pair, axis):
        """The gradients of the n products, of leaves repeated along the channels."""
        winner, g = pair
        offset = lax.broadcasted_iota(g.dtype, g.shape, axis) // channels
        rows = [
            jnp.where(winner == number * row + offset, g, zero)
            for row in range(4 // number)
        ]
        return [winograd.mix(weights, rows) for weights in form.out.T]

    def block(sums, given):
        images, winner, g = given
        factors = form.factors(images)
        by_position = [
            leaf.astype(g.dtype).reshape(-1, channels) for leaf in (winner, g)
        ]
        by_channel = [matmul.transposed(leaf) for leaf in by_position]
        bias = jnp.where(by_channel[0] < 4, by_channel[1], zero).sum(axis=1)
        tall = products([jnp.tile(leaf, (number, 1)) for leaf in by_channel], 0)
        if backend.current() == "cpu":  # as `matmul` wants left factors
            beside = [jnp.concatenate([leaf] * number, axis=1) for leaf in by_position]
            wide = products(beside, 1)
        else:
            wide = [each.T for each in tall]
        weight = [
            matmul.dot(each, factor.reshape(-1, w.shape[1]))
            for each, factor in zip(tall, factors, strict=True)
        ]
        back = [
            matmul.dot(each, right.T).reshape(factor.shape)
            for each, right, factor in zip(wide, w, factors, strict=True)
        ]
        moved = form.transposed(back, images)
        return (jax.tree.map(jnp.add, sums[0], weight), sums[1] + bias), moved

    zeros = [jnp.zeros(w.shape[:0:-1], w.dtype)] * w.shape[0]
    zeros = zeros, jnp.zeros(channels, g.dtype)
    cut = tuple(_cut(form.images, leaf) for leaf in (x, winner, g))
    (weight, bias), moved = lax.scan(block, zeros, cut)
    weight = jnp.stack([matmul.whole(part).T for part in weight])
    return _join(moved, x.shape[0]), weight, bias


_products_max_relu.defvjp(_forward, _backward)


def _cut(most: int, x: jax.Array) -> jax.Array:
    """x [B, ...] as blocks [B / b, b <= most, ...], filled up with zeros."""
    number = max(1, -(-x.shape[0] // max(1, most)))
    size = -(-x.shape[0] // number)  # as even as can be
    missing = number * size - x.shape[0]
    if missing:
        x = jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))
    return x.reshape(number, size, *x.shape[1:])


def _join(cut: Any, number: int) -> Any:
    """The first `number` rows of blocks that `_cut` made."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:number], cut)
