"""Two rows of a convolution at a time, with fewer multiplications.

F(2, k) gives two neighbouring results of a k-tap filter by k + 1 products instead of
2 k: data and taps are each turned into k + 1 numbers, multiplied, and turned back. Here
it is used from row to row, on windows that are k + 1 columns wide; the two columns that
are pooled together share a window as in `conv_pool`.

Reference:
    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.
    https://arxiv.org/abs/1509.09308
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial import polynomial

# The values at which polynomials are compared; the last one is infinity.
_POINTS = {3: (0, 1, -1), 5: (0, 1, -1, 2, -2)}
# Larger kernels have more points, and lose more digits.
SIZES = tuple(_POINTS)


class Matrices(NamedTuple):
    """results = out @ ((taps @ filter) * (data @ input)), n = k + 1."""

    data: np.ndarray  # [n, k + 1]
    taps: np.ndarray  # [n, k]
    out: np.ndarray  # [2, n]


@functools.cache
def matrices(size: int) -> Matrices:
    """F(2, size) by Toom and Cook: products of polynomials at some points."""
    points = _POINTS[size]
    number = size + 1
    data, taps = np.zeros((number, number)), np.zeros((number, size))
    out = np.zeros((2, number))
    for i, point in enumerate(points):
        others = [p for p in points if p != point]
        data[i, : number - 1] = polynomial.polyfromroots(others)
        scale = np.prod([point - p for p in others])
        taps[i] = np.power(float(point), np.arange(size)) / scale
        out[:, i] = 1, point
    data[-1] = polynomial.polyfromroots(points)
    taps[-1, -1] = out[1, -1] = 1
    return Matrices(data, taps, out)


def mix(weights: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    """The sum of the parts, each times its weight; zeros are left out."""
    terms = [
        part if weight == 1 else part * jnp.asarray(weight, part.dtype)
        for weight, part in zip(weights, parts, strict=True)
        if weight
    ]
    return functools.reduce(jnp.add, terms)


def kernels(kernel: jax.Array) -> jax.Array:
    """Turns a kernel [k, k, C, O] into factors [n, (k + 1) C, 2 O]."""
    size, out = kernel.shape[0], kernel.shape[-1]
    taps = jnp.asarray(matrices(size).taps, kernel.dtype)
    turned = jnp.einsum("pk,kxco->pxco", taps, kernel, precision="highest")
    placed = [jnp.pad(turned, ((0, 0), (j, 1 - j), (0, 0), (0, 0))) for j in (0, 1)]
    return jnp.stack(placed, axis=3).reshape(size + 1, -1, 2 * out)


def windows(x: jax.Array, size: int) -> list[jax.Array]:
    """Turns images [b, H, W, C] into n factors [b, H', W', (k + 1) C].

    The rows are mixed by a product with a band matrix: XLA:CPU computes sums of slices
    anew for every window that they are in, but never a product.
    """
    x, rows, columns = _cells(x, size)
    data = matrices(size).data
    band = np.zeros((size + 1, rows, x.shape[1]))
    for row in range(rows):
        band[:, row, 2 * row : 2 * row + size + 1] = data
    band = jnp.asarray(band.reshape(-1, x.shape[1]), x.dtype)
    turned = lax.dot_general(
        jnp.broadcast_to(band, (x.shape[0], *band.shape)),
        x.reshape(*x.shape[:2], -1),
        (((2,), (1,)), ((0,), (0,))),
        precision="highest",
    )
    turned = turned.reshape(x.shape[0], size + 1, rows, *x.shape[2:])
    return [across(turned[:, p], columns) for p in range(size + 1)]


def windows_transposed(factors: list[jax.Array], x: jax.Array, size: int) -> jax.Array:
    """The gradient of images by that of their factors.

    Of sums of slices, the same map: that is what transposes into fast code.
    """

    def mixed(x):
        x, rows, columns = _cells(x, size)
        pairs = x.reshape(x.shape[0], -1, 2, *x.shape[2:])
        slices = [pairs[:, k // 2 : k // 2 + rows, k % 2] for k in range(size + 1)]
        data = matrices(size).data
        return [across(mix(data[p], slices), columns) for p in range(size + 1)]

    return jax.vjp(mixed, x)[1](factors)[0]


def _cells(x: jax.Array, size: int) -> tuple[jax.Array, int, int]:
    """Pairs of columns [b, H, W / 2, 2 C] of what windows need; H' and W'."""
    batch, height, width, channels = x.shape
    rows, columns = (height - size + 1) // 2, (width - size + 1) // 2
    more = size // 2
    x = x[:, : 2 * (rows + more), : 2 * (columns + more)]
    return x.reshape(batch, -1, columns + more, 2 * channels), rows, columns


def across(x: jax.Array, columns: int) -> jax.Array:
    """Windows of cells [b, H', W', ...] side by side."""
    cells = x.shape[2] - columns + 1
    return jnp.concatenate([x[:, :, j : j + columns] for j in range(cells)], axis=-1)
