"""Convolution and pooling against NumPy loops, and the lowerings against each other."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.ops import conv, winograd

# Height, width, channels in and out, kernel: odd and even sides, never square, and
# one kernel of even size, for which `fused` falls back.
POOLED = [(8, 5, 1, 1, 1), (9, 6, 3, 2, 3), (10, 13, 2, 3, 5), (7, 10, 1, 2, 2)]
# More channels than images have, as in layers after the first one.
POOLED += [(9, 12, 6, 4, 3), (11, 14, 5, 3, 5), (12, 9, 5, 2, 7)]
# Height, width, channels in and out, kernel, stride, padding.
WAYS = ("native", "im2col", "fused", "blocked", "winograd")
PLAIN = [
    (6, 7, 1, 2, 1, 1, 0),
    (7, 10, 2, 1, 1, 2, 0),
    (9, 6, 3, 2, 3, 1, 1),
    (8, 7, 2, 3, 3, 2, 1),
    (11, 9, 1, 2, 5, 2, 2),
    (8, 9, 2, 2, 4, 3, 1),
]


def draw(height, width, channels, out, size, dtype, batch=2):
    """Images, kernel and bias."""
    rng = np.random.default_rng(height * width + size)
    shapes = (batch, height, width, channels), (size, size, channels, out), (out,)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def weights(shape):
    """What the results are weighted with to have gradients."""
    return np.random.default_rng(0).normal(size=shape)


def values_and_gradients(function, arguments):
    """A tree of results, and each one's gradients by all arguments, in one program."""

    @jax.jit
    def program(arguments):
        results, pull = jax.vjp(function, *arguments)
        leaves, structure = jax.tree.flatten(results)
        found = []
        for chosen in range(len(leaves)):
            seeds = [
                jnp.asarray(weights(leaf.shape) * (i == chosen), leaf.dtype)
                for i, leaf in enumerate(leaves)
            ]
            found.append(pull(structure.unflatten(seeds)))
        return results, *map(structure.unflatten, zip(*found, strict=True))

    return program(arguments)


def close(found, expected, atol):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def loop_conv(x, kernel, bias, stride, padding):
    """The definition: a sum over the window at every position."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    rows = range(0, x.shape[1] - size + 1, stride)
    columns = range(0, x.shape[2] - size + 1, stride)
    out = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for b, (r, i), (c, j), o in itertools.product(
        range(len(x)), enumerate(rows), enumerate(columns), range(kernel.shape[-1])
    ):
        window = x[b, i : i + size, j : j + size]
        out[b, r, c, o] = (window * kernel[..., o]).sum() + bias[o]
    return out


def loop_conv_relu_pool(x, kernel, bias):
    """The definition, and where each maximum was: row and column offset."""
    full = np.maximum(loop_conv(x, kernel, bias, 1, 0), 0)
    batch, height, width, out = full.shape
    pooled = np.zeros((batch, height // 2, width // 2, out))
    for b, r, c, o in np.ndindex(pooled.shape):
        pooled[b, r, c, o] = full[b, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2, o].max()
    return pooled


@pytest.mark.parametrize("case", PLAIN)
def test_native_convolution_is_the_sum_over_every_window(case, x64):
    *shape, stride, padding = case
    x, kernel, bias = draw(*shape, jnp.float64, batch=1)
    found = conv.conv(
        x, kernel, bias, stride=stride, padding=padding, lowering="native"
    )
    expected = loop_conv(*map(np.asarray, (x, kernel, bias)), stride, padding)
    np.testing.assert_allclose(found, expected, atol=1e-12, rtol=0)


def test_native_pooling_takes_the_largest_of_four_and_drops_an_odd_side(x64):
    arguments = draw(8, 7, 2, 2, 3, jnp.float64)
    found, *gradients = values_and_gradients(
        lambda *a: conv.conv_relu_pool(*a, "native"), arguments
    )
    arrays = [np.array(a) for a in arguments]
    np.testing.assert_allclose(found, loop_conv_relu_pool(*arrays), atol=1e-12, rtol=0)
    # Gradients by central differences, good to the step squared.
    seeds = weights(found.shape)
    for array, gradient in zip(arrays, gradients, strict=True):
        expected = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            old, sides = array[place], []
            for step in (1e-5, -1e-5):
                array[place] = old + step
                sides.append((seeds * loop_conv_relu_pool(*arrays)).sum())
            array[place] = old
            expected[place] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, atol=1e-7, rtol=0)


def compare_with_native(function, arguments, atol):
    """`function(*arguments, lowering)` in all lowerings, as one program."""
    every = values_and_gradients(
        lambda *a: {way: function(*a, way) for way in WAYS}, arguments
    )
    for way in WAYS[1:]:
        close([part[way] for part in every], [part["native"] for part in every], atol)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("case", POOLED)
def test_pooled_lowerings_have_the_native_values_and_gradients(case, dtype, x64):
    arguments = draw(*case, dtype)
    result = jax.eval_shape(lambda *a: conv.conv_relu_pool(*a, "fused"), *arguments)
    assert result.shape[1:3] == tuple((s - case[4] + 1) // 2 for s in case[:2])
    atol = 1e-10 if dtype == jnp.float64 else 1e-4
    compare_with_native(conv.conv_relu_pool, arguments, atol)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [2, 6], ids=["images", "hidden"])
@pytest.mark.parametrize("batch", [1, 37, 67])
def test_blocks_that_are_not_full_change_nothing(batch, channels, x64):
    arguments = draw(8, 7, channels, 2, 3, jnp.float64, batch)
    compare_with_native(conv.conv_relu_pool, arguments, 1e-10)


@pytest.mark.parametrize("size", winograd.SIZES)
def test_two_rows_at_a_time_are_the_two_sums(size):
    data, taps, out = winograd.matrices(size)
    # In each product as many numbers of the one as of the other, and two results.
    assert data.shape == (size + 1, size + 1) and out.shape == (2, size + 1)
    draw = np.random.default_rng(size)
    x, kernel = draw.normal(size=size + 1), draw.normal(size=size)
    expected = [x[:-1] @ kernel, x[1:] @ kernel]
    np.testing.assert_allclose(out @ ((taps @ kernel) * (data @ x)), expected)


def multiplications(lowering, channels, size=5):
    """Of a forward pass, in matrix products."""
    arguments = draw(14, 14, channels, 32, size, jnp.float32, 32)
    program = jax.jit(lambda *a: conv.conv_relu_pool(*a, lowering))
    text = program.lower(*arguments).as_text()
    found = re.findall(r"dot_general.*: \(tensor<(.*)xf32>, tensor<(.*)xf32>\)", text)
    shapes = [[list(map(int, side.split("x"))) for side in pair] for pair in found]
    return sum(math.prod(left) * right[-1] for left, right in shapes)


def test_layers_after_the_first_one_take_half_of_the_multiplications():
    assert multiplications("winograd", 3) == multiplications("blocked", 3)
    fewer = multiplications("winograd", 16) / multiplications("blocked", 16)
    assert 0.5 < fewer < 0.65  # half, and what turns the rows


def test_rounded_operands_are_not_turned_before_they_are_multiplied():
    arguments = draw(14, 14, 8, 4, 5, jnp.float32)

    def results(lowering, precision):
        with jax.default_matmul_precision(precision):
            return jax.jit(lambda *a: conv.conv_relu_pool(*a, lowering))(*arguments)

    pairs = [
        [results(lowering, precision) for lowering in ("blocked", "winograd")]
        for precision in ("float32", "bfloat16")
    ]
    assert (pairs[0][0] != pairs[0][1]).any()
    np.testing.assert_array_equal(*pairs[1])


@pytest.mark.parametrize("case", PLAIN)
def test_plain_lowerings_have_the_native_values_and_gradients(case, x64):
    *shape, stride, padding = case

    def function(x, kernel, bias, way):
        return conv.conv(x, kernel, bias, stride=stride, padding=padding, lowering=way)

    compare_with_native(function, draw(*shape, jnp.float64), 1e-10)
    if padding and stride > 1:
        compare_with_native(function, draw(*shape, jnp.float32), 1e-4)


@pytest.mark.parametrize("lowering", WAYS)
def test_of_equal_maxima_the_first_takes_the_whole_gradient(lowering, x64):
    # A pointwise convolution with weight 1 hands the image on, so that the gradient
    # of the sum is 1 where the first maximum of each 2x2 cell stands, 0 elsewhere.
    cells = {
        ((3, 3), (3, 3)): (0, 0),
        ((1, 3), (3, 3)): (0, 1),
        ((1, 1), (3, 3)): (1, 0),
        ((1, 2), (2, 1)): (0, 1),
        ((1, 1), (1, 3)): (1, 1),
        ((0, 0), (0, 0)): None,  # below zero the ReLU lets nothing through
    }
    x = np.concatenate([np.array(cell, float) for cell in cells], axis=1)
    expected = np.zeros(x.shape)
    for number, first in enumerate(cells.values()):
        if first is not None:
            expected[first[0], 2 * number + first[1]] = 1
    one, bias = jnp.ones((1, 1, 1, 1)), jnp.full((1,), -0.5)
    found = jax.grad(lambda x: conv.conv_relu_pool(x, one, bias, lowering).sum())(
        jnp.asarray(x[None, :, :, None])
    )
    np.testing.assert_array_equal(found[0, :, :, 0], expected)


def test_constant_regions_have_the_native_gradients(x64):
    # As in the digits, whose pixels are blocks of 4 x 4: ties everywhere. Weights are
    # whole numbers, so that what is equal is so in every order of summation.
    _, kernel, bias = draw(12, 12, 1, 3, 3, jnp.float64)
    blocks = np.random.default_rng(1).integers(0, 3, (2, 3, 3, 1))
    x = jnp.asarray(blocks.repeat(4, axis=1).repeat(4, axis=2), jnp.float64)
    whole = (x, jnp.round(4 * kernel), jnp.round(bias) + 2)
    compare_with_native(conv.conv_relu_pool, whole, 1e-10)


def test_a_weight_for_each_client_gives_what_each_would_get_alone(x64):
    clients = [draw(8, 7, 2, 3, 3, jnp.float64), draw(8, 7, 2, 3, 3, jnp.float64)]
    clients[1] = tuple(-0.5 * a for a in clients[1])
    stacked = tuple(jnp.stack(leaves) for leaves in zip(*clients, strict=True))

    def both(x, kernel, bias, way):
        pooled = conv.conv_relu_pool(x, kernel, bias, way)
        plain = conv.conv(x, kernel, bias, padding=1, stride=2, lowering=way)
        return jnp.concatenate([pooled.ravel(), plain.ravel()])

    def function(x, kernel, bias, way):
        if way == "native":  # a plain loop over the clients
            return jnp.stack([both(x[k], kernel[k], bias[k], way) for k in (0, 1)])
        return jax.vmap(lambda *a: both(*a, way))(x, kernel, bias)

    compare_with_native(function, stacked, 1e-10)
    native = jax.vmap(lambda *a: both(*a, "native"))(*stacked)
    np.testing.assert_allclose(native, function(*stacked, "native"), atol=1e-12)


@pytest.mark.parametrize("lowering", WAYS)
def test_a_number_that_is_none_is_not_hidden_by_the_maximum(lowering):
    x, kernel, bias = draw(8, 8, 1, 2, 3, jnp.float32)
    for place in ((0, 2, 2, 0), (0, 3, 2, 0), (0, 2, 3, 0), (0, 5, 5, 0)):
        pooled = conv.conv_relu_pool(x.at[place].set(jnp.nan), kernel, bias, lowering)
        # Every window that has the pixel, and no other image.
        assert np.isnan(pooled[0]).any() and np.isfinite(pooled[1]).all()
        rows = slice(max(place[1] - 2, 0) // 2, place[1] // 2 + 1)
        columns = slice(max(place[2] - 2, 0) // 2, place[2] // 2 + 1)
        assert np.isnan(pooled[0, rows, columns]).all()


def test_auto_stands_for_a_lowering_and_others_stand_for_themselves():
    assert conv.resolve("auto") in set(conv.LOWERINGS) - {"auto"}
    for name in ("native", "im2col", "fused"):
        assert conv.resolve(name) == name


def test_an_unknown_lowering_is_refused_by_name():
    message = (
        "must be one of auto, native, im2col, fused, blocked, winograd; got 'fourier'"
    )
    x, kernel, bias = draw(6, 6, 1, 1, 3, jnp.float32)
    for call in (
        lambda: conv.resolve("fourier"),
        lambda: conv.conv(x, kernel, bias, lowering="fourier"),
        lambda: conv.conv_relu_pool(x, kernel, bias, "fourier"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
