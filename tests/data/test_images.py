import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl.data import images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEIGHT, WIDTH = 12, 10  # unequal, so that an exchange of the two shows


def stored(num=7, height=HEIGHT, width=WIDTH, channels=3):
    values = np.random.default_rng(0).integers(0, 256, (num, height, width, channels))
    return jnp.asarray(values.astype(np.uint8))


def positions(num, batch_size, seed=1):
    values = np.random.default_rng(seed).integers(0, num, batch_size)
    return jnp.asarray(values.astype(np.int32))


def normalised(x):
    return (np.asarray(x, np.float64) / 255 - MEAN) / STD


def changed(image, changes, i):
    """Flip, erase and crop, literally and one after the other, on image [H, W, C]."""
    height, width, _ = image.shape
    flip, top, left, tall, wide, down, right = (int(part[i]) for part in changes)
    image = image[:, ::-1].copy() if flip else image.copy()
    image[top : top + tall, left : left + wide] = 0
    image = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    return image[4 + down : 4 + down + height, 4 + right : 4 + right + width]


augmented = images.prepare(MEAN, STD, "flip_erase_crop")
train = jax.jit(augmented.train)
draw = jax.jit(images.draw, static_argnums=(1, 2, 3))


@functools.cache
def draws(num_keys, batch_size, height, width):
    """Changes under many keys: NumPy arrays [num_keys, batch_size]."""
    many = jax.vmap(lambda key: images.draw(key, batch_size, height, width))
    keys = jax.random.split(jax.random.key(0), num_keys)
    return jax.tree.map(np.asarray, jax.jit(many)(keys))


@pytest.mark.parametrize("height,width", [(HEIGHT, WIDTH), (32, 32), (3, 5)])
def test_training_inputs_equal_the_three_operations_done_in_order(height, width):
    x, index = stored(7, height, width), positions(7, 64)
    changes = draw(jax.random.key(3), 64, height, width)
    expected = [
        changed(normalised(x[position]), changes, i)
        for i, position in enumerate(np.asarray(index))
    ]
    np.testing.assert_allclose(train(jax.random.key(3), x, index), expected, atol=2e-6)


@pytest.mark.parametrize("height,width", [(HEIGHT, WIDTH), (32, 32), (3, 5)])
def test_packed_images_give_the_same_bits(height, width):
    x, index = stored(7, height, width), positions(7, 64).at[3].set(-1)
    packed = jnp.asarray(images.pack(np.asarray(x), "tpu"))
    assert packed.shape == (7, 3 * height * width)
    both = images.prepare(MEAN, STD, "flip_erase_crop", shape=(height, width, 3))
    found, expected = (
        [jax.jit(both.train)(jax.random.key(3), given, index), both.test(given, index)]
        for given in (packed, x)
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"must have the shape \[n, H, W, 3\]"):
        both.test(packed[:, 1:], index)


def test_only_uint8_images_off_a_cpu_are_packed():
    x = np.asarray(stored())
    assert images.pack(x, "cpu") is x
    for other in (x.astype(np.float32), x[..., 0, 0]):
        assert images.pack(other, "gpu") is other


def test_test_inputs_are_normalised_and_nothing_else():
    x, index = stored(), positions(7, 5)
    expected = normalised(x)[np.asarray(index)]
    np.testing.assert_allclose(augmented.test(x, index), expected, atol=2e-6)


def test_normalised_pixels_are_rounded_once_whatever_compiles_them():
    x = jnp.arange(256, dtype=jnp.uint8)[:, None, None, None].repeat(3, axis=3)
    scale = (1 / (255 * np.float64(STD))).astype(np.float32).astype(np.float64)
    offset = (-np.float64(MEAN) / STD).astype(np.float32).astype(np.float64)
    expected = (np.asarray(x, np.float64) * scale + offset).astype(np.float32)
    index = jnp.arange(256)
    compiled = jax.jit(lambda i: jax.lax.map(lambda j: augmented.test(x, j[None]), i))
    np.testing.assert_array_equal(augmented.test(x, index), expected)  # step by step
    np.testing.assert_array_equal(jax.jit(augmented.test)(x, index), expected)
    np.testing.assert_array_equal(compiled(index)[:, 0], expected)


def test_none_trains_on_the_test_inputs():
    x, index = stored(), positions(7, 5)
    plain = images.prepare(MEAN, STD, "none")
    got = plain.train(jax.random.key(0), x, index)
    np.testing.assert_array_equal(got, augmented.test(x, index))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32, jnp.bfloat16])
def test_raw_hands_images_on_as_they_are(dtype):
    x, index = stored().astype(dtype), positions(7, 5)
    raw = images.prepare((), (), "raw")
    for got in (raw.train(jax.random.key(0), x, index), raw.test(x, index)):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, x[index])


def test_inputs_have_the_dtype_asked_for():
    x, index = stored(), positions(7, 64)
    half = images.prepare(MEAN, STD, "flip_erase_crop", jnp.bfloat16)
    got = jax.jit(half.train)(jax.random.key(0), x, index)
    assert got.dtype == half.test(x, index).dtype == jnp.bfloat16
    expected = train(jax.random.key(0), x, index).astype(jnp.bfloat16)
    np.testing.assert_array_equal(got, expected)


def test_padding_and_erased_pixels_are_zero_in_all_channels_and_no_others():
    # White is far from zero once normalised, so zeros can only have been put there.
    x, index = jnp.full((1, 32, 32, 3), 255, jnp.uint8), jnp.zeros(64, jnp.int32)
    zero = np.asarray(train(jax.random.key(5), x, index)) == 0
    assert (zero.any(-1) == zero.all(-1)).all()
    changes = draw(jax.random.key(5), 64, 32, 32)
    expected = [changed(np.ones((32, 32, 1)), changes, i)[..., 0] for i in range(64)]
    np.testing.assert_array_equal(~zero.all(-1), np.stack(expected) == 1)


def test_changes_keep_to_their_bounds():
    changes = draws(512, 8, 32, 24)
    _, top, left, tall, wide, down, right = (part.ravel() for part in changes)
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + tall <= 32).all() and (left + wide <= 24).all()
    assert set(down) == set(right) == set(range(-4, 5))
    erased = tall > 0
    np.testing.assert_array_equal(wide > 0, erased)
    tall, wide = tall[erased], wide[erased]
    # Sides are rounded: the true ones are within half a pixel.
    assert ((tall + 0.5) * (wide + 0.5) >= 0.04 * 32 * 24).all()
    assert ((tall - 0.5) * (wide - 0.5) <= 0.20 * 32 * 24).all()
    assert ((tall + 0.5) / (wide - 0.5) >= 0.5).all()
    assert ((tall - 0.5) / (wide + 0.5) <= 2.0).all()
    # Both ends are reached: the areas span more than 90% of the allowed range.
    area = tall * wide / (32 * 24)
    assert area.min() < 0.05 and area.max() > 0.19
    # The logarithm of the aspect is symmetric: 2048 or so draws of standard deviation
    # log(4) / sqrt(12) = 0.40 have a mean within 5 * 0.40 / sqrt(2048) = 0.044.
    assert abs(np.log(tall / wide).mean()) < 0.05
    # Likewise the area is uniform: its mean is 0.12, within 5 * 0.046 / sqrt(2048).
    assert abs(area.mean() - 0.12) < 0.006


def test_the_rectangle_touches_every_border():
    changes = draws(512, 8, 32, 24)
    erased = changes.height > 0
    top, left = changes.top[erased], changes.left[erased]
    assert top.min() == 0 and (top + changes.height[erased]).max() == 32
    assert left.min() == 0 and (left + changes.width[erased]).max() == 24


@pytest.mark.parametrize("name", ["flip", "erase"])
def test_half_of_the_images_are_changed(name):
    changes = draws(512, 8, 32, 24)
    hits = changes.flip if name == "flip" else changes.height > 0
    # Binomial with n = 4096 and p = 0.5: standard deviation 32; five of them.
    assert abs(hits.sum() - 2048) < 160
    # And at every place of the minibatch: n = 512, standard deviation 11.3.
    assert (abs(hits.sum(axis=0) - 256) < 57).all()


def test_flip_and_erasing_are_independent():
    changes = draws(512, 8, 32, 24)
    both = changes.flip & (changes.height > 0)
    # Binomial with n = 4096 and p = 0.25: standard deviation 27.7; five of them.
    assert abs(both.sum() - 1024) < 139


def test_the_key_decides():
    x, index = stored(), positions(7, 64)
    first = train(jax.random.key(0), x, index)
    np.testing.assert_array_equal(first, train(jax.random.key(0), x, index))
    assert (first != train(jax.random.key(1), x, index)).any()


def test_other_images_and_the_batch_size_do_not_matter():
    x, index = stored(), positions(7, 64)
    whole = train(jax.random.key(4), x, index)
    part = train(jax.random.key(4), x, index[:5])
    np.testing.assert_array_equal(whole[:5], part)
    others = train(jax.random.key(4), x, index.at[5:].set(0))
    np.testing.assert_array_equal(whole[:5], others[:5])


def test_an_index_of_minus_one_is_harmless():
    x, index = stored(), positions(7, 64)
    some = index.at[9:].set(-1)
    got = train(jax.random.key(4), x, some)
    assert np.isfinite(got).all() and np.isfinite(augmented.test(x, some)).all()
    np.testing.assert_array_equal(got[:9], train(jax.random.key(4), x, index)[:9])


@pytest.mark.parametrize("augmentation", ["none", "flip_erase_crop", "raw"])
def test_vmap_over_clients_equals_a_loop(augmentation):
    x, index = stored(), positions(7, 3 * 8).reshape(3, 8)
    preparation = images.prepare(MEAN, STD, augmentation)
    many = jax.jit(jax.vmap(preparation.train, in_axes=(0, None, 0)))
    got = many(jax.random.split(jax.random.key(6), 3), x, index)
    keys = jax.random.split(jax.random.key(6), 3)
    one = jax.jit(preparation.train)
    expected = [one(k, x, i) for k, i in zip(keys, index, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    one = jax.jit(preparation.test)
    got = jax.jit(jax.vmap(preparation.test, in_axes=(None, 0)))(x, index)
    expected = [one(x, i) for i in index]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_an_unknown_augmentation_is_answered_with_the_valid_ones():
    with pytest.raises(
        ValueError, match=r"no augmentation 'flip'.*flip_erase_crop, none, raw"
    ):
        images.prepare(MEAN, STD, "flip")


@pytest.mark.parametrize("std", [(0.2, 0.2), (0.2, 0.0, 0.2), (0.2, -1.0, 0.2)])
def test_std_must_fit_mean_and_be_positive(std):
    with pytest.raises(ValueError, match="one value a channel, and std must be"):
        images.prepare(MEAN, std, "none")


def test_only_uint8_images_are_normalised():
    x, index = stored().astype(jnp.float32), positions(7, 5)
    with pytest.raises(TypeError, match=r"must be uint8.*float32.*\"raw\""):
        augmented.test(x, index)
    with pytest.raises(TypeError, match="must be uint8"):
        augmented.train(jax.random.key(0), x, index)


def test_images_must_have_the_channels_of_mean():
    with pytest.raises(ValueError, match=r"\[n, H, W, 3\].*\[7, 12, 10, 1\]"):
        augmented.test(stored(channels=1), positions(7, 5))
