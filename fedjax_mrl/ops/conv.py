"""Convolution and pooling whose lowering can be chosen.

With a weight per client, `vmap` turns `lax.conv_general_dilated` into a grouped
convolution, which is slow everywhere and on a CPU more than ten times slower
than it need be. Five lowerings of the same mathematics:

* `native`: `lax.conv_general_dilated` and `lax.reduce_window`; the reference. The
  default on a TPU.
* `im2col`: shifted slices side by side, then one matrix product.
* `fused`: the convolution and the 2x2 pooling after it as one product. The
  four positions that are pooled together see one (k+1)x(k+1) window, so windows
  are taken with stride 2 (nearly a factor 3 less memory than `im2col`) and
  multiplied with the kernel placed at its four offsets, four times as many
  columns. That is ((k+1)/k)^2 times the arithmetic, in a shape that matrix units
  like, and the maximum runs over four adjacent blocks. See docs/performance.md. The
  default on a GPU.
* `blocked`: `fused`, a few images at a time, so that what is between the product and
  the pooled result stays in the cache of one core.
* `winograd`: `blocked`, with fewer multiplications in layers after the first one
  (`ops/winograd.py`), where kernels are 3 or 5 wide and operands are not rounded
  (`matmul.rounds`). The default on a CPU.
"""

import types
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl.ops import backend, conv_pool, matmul, winograd

Lowering = Literal["auto", "native", "im2col", "fused", "blocked", "winograd"]
LOWERINGS = ("auto", "native", "im2col", "fused", "blocked", "winograd")
_POOLING = ("fused", "blocked", "winograd")
# Images have at most so many channels.
_IMAGE_CHANNELS = 4
_BLOCK = 32  # images; see docs/performance.md
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# By platform. CPU: measured (docs/performance.md). TPU: by its compiler's account of
# FedMRL with CNN-1 on a v5e, two clients with 480 images each, `native` accesses 2.5 GB
# a step and takes 3.4 ms, `fused` 7.4 GB and 10.0 ms (docs/accelerators.md). GPU:
# its compiler counts neither, and a grouped convolution's gradient is known to be slow
# there, so the form that is one product stays.
_DEFAULT = types.MappingProxyType({"cpu": "winograd", "tpu": "native"})


def resolve(lowering: str) -> str:
    """Replaces `auto` by the default of the platform that is traced for.

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
    return _DEFAULT.get(backend.current(), "fused")


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
    out = matmul.matmul(patches, kernel.reshape(-1, kernel.shape[-1]))
    return out + _as_row(bias, out)


def conv_relu_pool(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, lowering: str = "auto"
) -> jax.Array:
    """Unpadded convolution, ReLU, 2x2 max-pooling with stride 2.

    An odd last row or column is dropped, as PyTorch's pooling does, and the
    gradient of a tie goes to the first maximum, as there. (Ties of computed numbers:
    equal windows differ in last bits, except for `native` and `im2col`.)

    Args:
        x: [B, H, W, C].
        kernel: [k, k, C, O], k odd for `fused`, `blocked` and `winograd` (else
            `im2col`).
        bias: [O].
        lowering: one of `LOWERINGS`.

    Returns:
        [B, (H - k + 1) // 2, (W - k + 1) // 2, O].
    """
    lowering = resolve(lowering)
    size = kernel.shape[0]
    if lowering in _POOLING and size % 2 == 1:
        fewer = (
            lowering == "winograd"
            and x.shape[-1] > _IMAGE_CHANNELS
            and size in winograd.SIZES
            and not matmul.rounds()
        )
        form = conv_pool.Form(_BLOCK, size, winograd=fewer)
        if lowering == "fused":
            # Built once: both extractors of a client read those of images.
            x, form = conv_pool.windows(x, size), conv_pool.Form(x.shape[0], None)
        return conv_pool.conv_relu_pool(form, x, kernel, bias)
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
