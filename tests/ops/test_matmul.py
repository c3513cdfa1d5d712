"""Products over examples: the mathematics, and equal bits on any number of threads."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.ops import conv, matmul
from tests.helpers import ROOT


@pytest.mark.parametrize("shapes", [(7, 3, 2), (7, 2, 3), (5, 300, 4), (3, 260, 270)])
def test_a_product_over_examples_is_the_transposed_one(shapes, x64):
    rows, left, right = shapes
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(rows, left)), draw.normal(size=(rows, right))
    np.testing.assert_allclose(matmul.over_examples(a, b), a.T @ b, atol=1e-12)


def test_a_transposed_matrix_has_the_same_numbers(monkeypatch):
    x = np.random.default_rng(2).normal(size=(300, 7)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(matmul.transposed)(x), x.T)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_array_equal(matmul.transposed(jnp.asarray(x)), x.T)


def test_the_gradients_of_a_product_are_the_plain_ones(x64):
    draw = np.random.default_rng(1)
    x, w = draw.normal(size=(4, 5, 6)), draw.normal(size=(6, 3))
    seeds = draw.normal(size=(4, 5, 3))
    value = lambda product: lambda x, w: (seeds * product(x, w)).sum()
    found = jax.grad(value(matmul.matmul), (0, 1))(x, w)
    expected = jax.grad(value(jnp.matmul), (0, 1))(x, w)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    ("precision", "bits"), [("bfloat16", 8), ("tensorfloat32", 11), ("highest", 24)]
)
def test_operands_are_rounded_to_the_precision_that_is_asked_for(precision, bits):
    """Of 1 + 2**-(bits - 1), all is kept; of 1 + 2**-bits, only the 1."""
    kept, lost = (np.float32(1 + 2.0**-b) for b in (bits - 1, bits))
    with jax.default_matmul_precision(precision):
        product = jax.jit(matmul.matmul)
        found = product(jnp.array([[kept], [lost]]), jnp.ones((1, 1), jnp.float32))
        back = jax.grad(lambda w: matmul.matmul(jnp.full((1, 1), lost), w).sum())
        gradient = back(jnp.ones((1, 1), jnp.float32))
    np.testing.assert_array_equal(found[:, 0], [kept, np.float32(1)])
    np.testing.assert_array_equal(gradient, [[1]])
    # Sums are not rounded.
    with jax.default_matmul_precision(precision):
        total = matmul.dot(jnp.ones((1, 1025)), jnp.ones((1025, 1)))
    assert total[0, 0] == 1025


# Prints a hash of what depends on the threads when products are left to XLA.
HASHES = """
import hashlib, jax, numpy as np
from fedjax_mrl.ops import conv, matmul
draw = lambda *shape: np.random.default_rng(0).normal(size=shape).astype(np.float32)
def values(a, b, c, x, first, second):
    def pooled(*layers, number=64):
        y = x[:number]
        for kernel, bias in layers:
            y = conv.conv_relu_pool(y, kernel, bias)
        return y.sum()
    gradients = jax.grad(pooled, (0, 1))(first, second)
    few = jax.grad(lambda *layers: pooled(*layers, number=1), (0, 1))(first, second)
    over = [matmul.over_examples(*pair) for pair in ((a, b), (b, a), (a, c), (c, a))]
    return gradients, few, over
found = jax.jit(values)(
    draw(512, 500), draw(512, 10), draw(512, 800), draw(64, 32, 32, 3),
    (draw(5, 5, 3, 16), draw(16)), (draw(5, 5, 16, 32), draw(32)),
)
found = jax.tree.leaves(found)
print(*[hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest() for leaf in found])
"""


@pytest.mark.slow
def test_sums_do_not_depend_on_the_number_of_threads():
    known = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    found = [
        subprocess.run(
            [sys.executable, "-c", HASHES],
            cwd=ROOT,
            env=known | {"NPROC": threads, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("2", "3", "8")
    ]
    assert len(found[0]) > 12 * 64 and len(set(found)) == 1


@pytest.mark.parametrize("number", [3, 40])  # images: one block, and several
def test_no_product_has_a_transposed_left_factor(number):
    """XLA's kernel for those has sums that depend on the number of threads."""
    draw = lambda *shape: jnp.ones(shape, jnp.float32)
    layers = (draw(5, 5, 3, 16), draw(16)), (draw(5, 5, 16, 32), draw(32))
    dense = draw(800, 300), draw(300, 10)

    def loss(layers, dense, x):
        for kernel, bias in layers:
            x = conv.conv_relu_pool(x, kernel, bias)
        x = x.reshape(number, -1)
        for kernel in dense:
            x = jax.nn.relu(matmul.matmul(x, kernel))
        return x.sum()

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    text = gradient.lower(layers, dense, draw(number, 32, 32, 3)).compile().as_text()
    products = [line for line in text.splitlines() if " dot(" in line]
    assert len(products) > 10
    assert not [line for line in products if "lhs_contracting_dims={0}" in line]
