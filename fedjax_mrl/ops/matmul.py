"""The matrix products of networks, forward and backward.

`dot` is a product in the precision that is asked for. On a CPU, XLA has two kernels for
products. The one for a @ b and a @ b.T has sums that do not depend on the number of
threads. The other one, for a.T @ b and for products that are transposed afterwards,
splits a sum, or computes rows in another order, by the threads there are. The same
program would then give other last bits on a machine with more cores, or with more
devices set up. So transposed factors and results are kept `whole`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_mrl.ops import backend

# Bits of the mantissa of operands; sums are float32.
_MANTISSA = {"bfloat16": 7, "tensorfloat32": 10}


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b in the precision of `jax.default_matmul_precision`.

    An accelerator's own units take less precise operands. A CPU has none; it rounds
    them to the same bits, to see what that does to accuracy, and is no faster.
    """
    bits = _bits()
    if bits and backend.current() == "cpu":
        a, b = (lax.reduce_precision(x, 8, bits) for x in (a, b))
    return a @ b


def rounds() -> bool:
    """Whether `dot` may take less precise operands, as far as is asked for here."""
    if backend.current() == "cpu":
        return _bits() is not None
    return _precision() not in ("highest", "float32")


def _bits() -> int | None:
    # JAX traces anew for another precision, of which it says no other way.
    return _MANTISSA.get(_precision())


def _precision() -> str:
    """JAX's name of the precision of products, as far as it is set here."""
    set_here = jax.config.jax_default_matmul_precision  # pyrefly: ignore[missing-attribute]
    return str(set_here)


def transposed(x: jax.Array) -> jax.Array:
    """x.T [J, M], in memory before it is used.

    On a CPU XLA would rather fetch each number from x [M, J], across memory, wherever
    it is needed. It does not look into a product. (A number that is not finite makes
    others of its row so.)
    """
    if backend.current() != "cpu":
        return x.T
    one = jnp.eye(x.shape[1], dtype=x.dtype)
    return lax.dot_general(one, x, (((1,), (1,)), ((), ())), precision="highest")


def whole(x: jax.Array) -> jax.Array:
    """x, put into memory as it is before it is used.

    Of a product with x.T, or of one that is transposed afterwards, a CPU's compiler
    would make a product for its other kernel, without the transposition.
    """
    return lax.optimization_barrier(x) if backend.current() == "cpu" else x


@jax.jit  # named, so that `flops` counts the product and not how it is computed
def over_examples(a: jax.Array, b: jax.Array) -> jax.Array:
    """a.T @ b, summed over the leading axis: [M, I], [M, J] -> [I, J]."""
    (rows, left), right = a.shape, b.shape[1]
    if rows * left > rows * right + left * right:  # more numbers that change places
        return whole(dot(whole(b.T), a)).T
    return dot(whole(a.T), b)


@jax.custom_vjp
def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [..., I] @ w [I, J], with the gradient of w by `over_examples`."""
    return dot(x, w)


def _matmul_forward(x, w):
    return dot(x, w), (x, w)


def _matmul_backward(residuals, g):
    x, w = residuals
    flat = [leaf.reshape(-1, leaf.shape[-1]) for leaf in (x, g)]
    return dot(g, w.T), over_examples(*flat)


matmul.defvjp(_matmul_forward, _matmul_backward)
