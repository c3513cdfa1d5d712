"""Matrix products that contract the examples of a minibatch.

On a CPU, XLA hands a @ b to a kernel whose sums do not depend on the number of
threads, but a.T @ b to another one that, for small results, splits the sum over the
threads there are. The same program would then give other last bits on a machine with
more cores, or with more devices set up. So the smaller operand is transposed for good.
"""

import jax
import jax.numpy as jnp

_SMALL = 256  # larger results are split by rows and columns, never within a sum


@jax.jit  # named, so that `flops` counts the product and not how it is computed
def over_examples(a: jax.Array, b: jax.Array) -> jax.Array:
    """a.T @ b, summed over the leading axis: [M, I], [M, J] -> [I, J]."""
    if min(a.shape[1], b.shape[1]) > _SMALL:
        return a.T @ b
    if a.shape[1] < b.shape[1]:
        return over_examples(b, a).T
    return (as_rows([b]) @ a)[: b.shape[1]].T


def as_rows(parts: list[jax.Array]) -> jax.Array:
    """The columns of all parts [M, J] as rows [sum J + 1, M], and a row of zeros.

    The row makes it a concatenation, which XLA writes to memory; a transposition alone
    it would undo.
    """
    zeros = jnp.zeros((1, parts[0].shape[0]), parts[0].dtype)
    return jnp.concatenate([*(part.T for part in parts), zeros])


@jax.custom_vjp
def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [..., I] @ w [I, J], with the gradient of w by `over_examples`."""
    return x @ w


def _matmul_forward(x, w):
    return x @ w, (x, w)


def _matmul_backward(residuals, g):
    x, w = residuals
    flat = [leaf.reshape(-1, leaf.shape[-1]) for leaf in (x, g)]
    return g @ w.T, over_examples(*flat)


matmul.defvjp(_matmul_forward, _matmul_backward)
