"""Convolution and pooling whose lowering can be chosen.

With a weight per client, `vmap` turns `lax.conv_general_dilated` into a grouped
convolution, which is slow everywhere and on a CPU more than ten times slower
than it need be. Four lowerings of the same mathematics:

* `native`: `lax.conv_general_dilated` and `lax.reduce_window`; the reference.
* `im2col`: shifted slices side by side, then one matrix product.
* `fused`: the convolution and the 2x2 pooling after it as one product. The
  four positions that are pooled together see one (k+1)x(k+1) window, so windows
  are taken with stride 2 (nearly a factor 3 less memory than `im2col`) and
  multiplied with the kernel placed at its four offsets, four times as many
  columns. That is ((k+1)/k)^2 times the arithmetic, in a shape that matrix units
  like, and the maximum runs over four adjacent blocks. See docs/performance.md.
* `blocked`: `fused`, a few images at a time, so that what is between the product and
  the pooled result stays in the cache of one core. The default on a CPU.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl import products

Lowering = Literal["auto", "native", "im2col", "fused", "blocked"]
LOWERINGS = ("auto", "native", "im2col", "fused", "blocked")
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def resolve(lowering: str) -> str:
    """Replaces `auto` by the default of the present backend.

    Raises:
        ValueError: for a name that is none of `LOWERINGS`.
    """
    if lowering not in LOWERINGS:
        raise ValueError(
            f"A convolution's lowering must be one of {', '.join(LOWERINGS)}; got "
            f"{lowering!r}."
        )
    if lowering != "auto":
        return lowering
    return "blocked" if jax.default_backend() == "cpu" else "fused"


def conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    *,
    stride: int = 1,
    padding: int = 0,
    lowering: str = "auto",
) -> jax.Array:
    """Convolves `x` [B, H, W, C] with `kernel` [k, k, C, O], adds `bias` [O].

    Returns:
        [B, (H + 2 padding - k) // stride + 1, ..., O].
    """
    if resolve(lowering) == "native":
        out = lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=[(padding, padding)] * 2,
            dimension_numbers=_DIMENSIONS,
        )
        return out + _as_row(bias, out)
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    patches = _windows(x, kernel.shape[0], stride)
    out = products.matmul(patches, kernel.reshape(-1, kernel.shape[-1]))
    return out + _as_row(bias, out)


def conv_relu_pool(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, lowering: str = "auto"
) -> jax.Array:
    """Unpadded convolution, ReLU, 2x2 max-pooling with stride 2.

    An odd last row or column is dropped, as PyTorch's pooling does, and the
    gradient of a tie goes to the first maximum, as there.

    Args:
        x: [B, H, W, C].
        kernel: [k, k, C, O], k odd for `fused` and `blocked` (else `im2col`).
        bias: [O].
        lowering: one of `LOWERINGS`.

    Returns:
        [B, (H - k + 1) // 2, (W - k + 1) // 2, O].
    """
    lowering = resolve(lowering)
    if lowering in ("fused", "blocked") and kernel.shape[0] % 2 == 1:
        size = kernel.shape[0]
        hidden = lowering == "blocked" and x.shape[-1] > _IMAGE_CHANNELS
        if hidden:
            blocks = Blocks(16, size)
        else:
            blocks = Blocks(32 if lowering == "blocked" else x.shape[0], None)
            x = _pooled_windows(x, size)
        return _matmul_max_relu(blocks, x, _four_offsets(kernel), bias)
    out = jax.nn.relu(conv(x, kernel, bias, lowering=lowering))
    if lowering == "native":
        return lax.reduce_window(
            out, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    batch, height, width, channels = out.shape
    out = out[:, : height // 2 * 2, : width // 2 * 2]
    out = out.reshape(batch, height // 2, 2, width // 2, 2, channels)
    top, bottom = (_first_max(out[:, :, i, :, 0], out[:, :, i, :, 1]) for i in (0, 1))
    return _first_max(top, bottom)


def _first_max(a: jax.Array, b: jax.Array) -> jax.Array:
    """The maximum; the gradient of a tie goes to `a` alone, and NaN wins."""
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def _as_row(bias: jax.Array, like: jax.Array) -> jax.Array:
    return bias.reshape((1,) * (like.ndim - 1) + bias.shape)


def _windows(x: jax.Array, size: int, stride: int) -> jax.Array:
    """All windows of `x`: [B, H', W', size * size * C], rows, columns, channels."""
    height = (x.shape[1] - size) // stride + 1
    width = (x.shape[2] - size) // stride + 1
    across = [x[:, :, j : j + (width - 1) * stride + 1 : stride] for j in range(size)]
    x = jnp.concatenate(across, axis=-1)
    # In two stages there are 2 * size copies of long runs, not size**2 of short ones.
    down = [x[:, i : i + (height - 1) * stride + 1 : stride] for i in range(size)]
    return jnp.concatenate(down, axis=-1)


def _pooled_windows(x: jax.Array, size: int) -> jax.Array:
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
    x = jnp.concatenate([x[:, :, j : j + columns] for j in range(cells)], axis=-1)
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
    cells = (size + 1) // 2  # the order of rows is that of `_pooled_windows`
    placed = placed.reshape(cells, 2, cells, 2, channels, 4 * out)
    placed = placed.transpose(0, 2, 1, 3, 4, 5)
    return placed.reshape((size + 1) ** 2 * channels, 4 * out)


# Images have at most so many channels.
_IMAGE_CHANNELS = 4


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How many images are computed at a time, and where their windows come from.

    Windows of images are built once for all, since both extractors of a client read
    them. A hidden layer's are built block by block, forward and again backward, which
    is cheaper than to fetch them from memory.
    """

    size: int
    kernel: int | None  # None if windows are given

    def windows(self, rows: jax.Array) -> jax.Array:
        """Windows [b, H', W', K] of a block."""
        return rows if self.kernel is None else _pooled_windows(rows, self.kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul_max_relu(
    blocks: Blocks, x: jax.Array, w: jax.Array, bias: jax.Array
) -> jax.Array:
    """relu(max over the four column blocks of windows @ w, plus bias).

    Args:
        blocks: see there.
        x: [B, ...], whose windows are [B, H', W', K].
        w: [K, 4 O].
        bias: [O].

    Returns:
        [B, H', W', O].
    """
    return _matmul_max_relu_forward(blocks, x, w, bias)[0]


def _matmul_max_relu_forward(blocks, x, w, bias):
    out = bias.shape[0]

    def block(rows):
        windows = blocks.windows(rows)
        product = products.dot(windows.reshape(-1, w.shape[0]), w)
        a, b, c, d = (product[:, i * out : (i + 1) * out] for i in range(4))
        highest = jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))
        pooled = jax.nn.relu(highest + bias[None, :])
        first = jnp.where(
            a == highest, 0, jnp.where(b == highest, 1, jnp.where(c == highest, 2, 3))
        )
        # One byte a number says where the gradient goes; 4 is nowhere.
        winner = jnp.where(pooled > 0, first, 4).astype(jnp.int8)
        shape = (*windows.shape[:-1], out)
        return pooled.reshape(shape), winner.reshape(shape)

    pooled, winner = _join(lax.map(block, _cut(blocks.size, x)), x.shape[0])
    return pooled, (x, w, winner)


def _matmul_max_relu_backward(blocks, residuals, g):
    x, w, winner = residuals
    zero = jnp.zeros((), g.dtype)

    def block(sums, given):
        rows, winner, g = given
        windows, transposed = jax.vjp(blocks.windows, rows)
        winner, g = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (winner, g))
        spread = [jnp.where(winner == i, g, zero) for i in range(4)]
        bias = jnp.where(winner < 4, g, zero).sum(axis=0)
        # As `products.over_examples`, but transposed until all blocks are added up.
        weight = products.dot(products.as_rows(spread), windows.reshape(-1, w.shape[0]))
        back = products.dot(jnp.concatenate(spread, axis=-1), w.T)
        moved = transposed(back.reshape(windows.shape))[0]
        return (sums[0] + weight, sums[1] + bias), moved

    zeros = jnp.zeros((w.shape[1] + 1, w.shape[0]), w.dtype)
    zeros = zeros, jnp.zeros(g.shape[-1], g.dtype)
    cut = [_cut(blocks.size, leaf) for leaf in (x, winner, g)]
    (weight, bias), moved = lax.scan(block, zeros, tuple(cut))
    return _join(moved, x.shape[0]), weight[:-1].T, bias


_matmul_max_relu.defvjp(_matmul_max_relu_forward, _matmul_max_relu_backward)


def _cut(size: int, x: jax.Array) -> jax.Array:
    """x [B, ...] as blocks [B / size, size, ...], filled up with zeros."""
    size = min(size, x.shape[0])
    missing = -x.shape[0] % size
    if missing:
        x = jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))
    return x.reshape(-1, size, *x.shape[1:])


def _join(cut: Any, number: int) -> Any:
    """The first `number` rows of blocks that `_cut` made."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:number], cut)
