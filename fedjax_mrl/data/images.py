"""From stored uint8 images to network inputs, inside the compiled step.

The data set stays on the device as it was stored, and a minibatch is a row of
positions in it. Every output pixel is traced back to the one stored pixel that it
shows, so flip, erasing and crop together are one choice of pixels, and only those of
the minibatch are ever turned into floats.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import discovery
from fedjax_mrl.ops import backend

AUGMENTATIONS = ("none", "flip_erase_crop", "raw")
_FLIP = 0.5  # probability
_ERASE = 0.5  # probability
_AREA = (0.04, 0.20)  # of the image
_ASPECT = (0.5, 2.0)  # height over width
_PADDING = 4  # pixels on each side, before the crop


class Preparation(NamedTuple):
    """How stored images become network inputs.

    Attributes:
        train: key, images [n, H, W, C], or packed, index [B] -> inputs [B, H, W, C].
        test: the same without a key and without augmentation.

    An index of -1 (no example) gives some image; the caller masks it.
    """

    train: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    test: Callable[[jax.Array, jax.Array], jax.Array]


class Changes(NamedTuple):
    """The changes that flip_erase_crop makes to each image of a minibatch.

    Applied to the normalised image in this order: flip, then zeros in the rectangle,
    then the window of the zero-padded image that starts `down` and `right` of it.
    """

    flip: jax.Array  # [B] bool
    top: jax.Array  # [B] int32, of the erased rectangle
    left: jax.Array  # [B] int32
    height: jax.Array  # [B] int32, 0 where nothing is erased
    width: jax.Array  # [B] int32, 0 where nothing is erased
    down: jax.Array  # [B] int32 in [-4, 4]
    right: jax.Array  # [B] int32 in [-4, 4]


def prepare(
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: str,
    dtype: jax.typing.DTypeLike = jnp.float32,
    *,
    shape: tuple[int, ...] | None = None,
) -> Preparation:
    """Builds the preparation of a data set's images.

    Both functions are pure, and work under `vmap` over a client axis of key and
    index with the images shared.

    Args:
        mean: of each channel, of pixel values scaled to [0, 1].
        std: likewise; positive.
        augmentation: "flip_erase_crop" for training images as in the authors' code
            (horizontal flip, random erasing, random crop with zero padding, on the
            normalised image); "none" only normalises; "raw" hands images on as they
            are stored, dtype included, for data that is prepared already.
        dtype: of the inputs; the arithmetic is in float32.
        shape: (H, W, C), to take images that are packed as well, see `pack`.

    Raises:
        ValueError: for an unknown augmentation, or unusable `mean` and `std`. The
            functions raise it where the images have another number of channels,
            and TypeError where images to be normalised are not uint8.
    """
    if augmentation not in AUGMENTATIONS:
        raise ValueError(discovery.unknown("augmentation", augmentation, AUGMENTATIONS))
    if augmentation == "raw":
        return Preparation(lambda key, images, index: _take(images, index), _take)
    normalise, num_channels = _normalisation(mean, std), len(mean)

    def test(images, index):
        _check(images, num_channels, shape)
        return normalise(_take(images, index, shape)).astype(dtype)

    def train(key, images, index):
        _check(images, num_channels, shape)
        height, width, _ = images.shape[1:] if shape is None else shape
        changes = draw(key, index.shape[0], height, width)
        rows, columns, keep = _trace(changes, height, width)
        if images.ndim == 4:
            pixels = _gather_pixels(images, index, rows, columns)
        else:
            pixels = _select_pixels(_take(images, index, shape), rows, columns)
        # Zeros are zeros of the normalised image, as if put there after normalising.
        inputs = jnp.where(keep[..., None], normalise(pixels), jnp.float32(0))
        return inputs.astype(dtype)

    if augmentation == "none":
        return Preparation(lambda key, images, index: test(images, index), test)
    return Preparation(train, test)


def _normalisation(
    mean: Sequence[float], std: Sequence[float]
) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from pixels [B, H, W, C] to normalised float32 ones.

    A CPU looks them up. If it multiplied and added, it would depend on the compiler,
    and from jax 0.11 on on the loop around, whether a product is rounded before the
    sum, and so would the last bit.

    Raises:
        ValueError: for unusable `mean` and `std`, see `prepare`.
    """
    if len(mean) != len(std) or not all(0 < s < math.inf for s in std):
        raise ValueError(
            "mean and std must have one value a channel, and std must be positive, "
            f"but mean is {tuple(mean)} and std is {tuple(std)}."
        )
    deviation = np.asarray(std, np.float64).reshape(1, 1, 1, -1)
    scale = (1 / (255 * deviation)).astype(np.float32)
    offset = (-np.asarray(mean, np.float64) / deviation).astype(np.float32)
    # Each of the 256 values that a pixel can have, rounded once: [256 C].
    exact = np.arange(256).reshape(-1, 1, 1, 1) * scale.astype(np.float64) + offset
    table = exact.astype(np.float32).ravel()
    channels = len(std)
    channel = np.arange(channels, dtype=np.int32).reshape(1, 1, 1, -1)

    def normalise(pixels):
        if backend.current() != "cpu":
            return pixels.astype(jnp.float32) * scale + offset
        places = pixels.astype(jnp.int32) * channels + channel
        return jnp.asarray(table).at[places].get(mode="promise_in_bounds")

    return normalise


def draw(key: jax.Array, batch_size: int, height: int, width: int) -> Changes:
    """Draws the changes that flip_erase_crop makes to the images of one minibatch.

    The changes of the i-th image are a function of the key and of i: neither of the
    size of the minibatch nor of what else is in it.

    Args:
        key: of this client and step.
        batch_size: B.
        height: of the images, in pixels.
        width: of the images, in pixels.
    """
    # One draw, images first: row i does not depend on the number of rows.
    uniform = jax.random.uniform(key, (batch_size, 8), jnp.float32)
    flip, erase, area, aspect, top, left, down, right = uniform.T
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
    low, high = map(math.log, _ASPECT)
    aspect = jnp.exp(low + (high - low) * aspect)
    erase = erase < _ERASE

    def side(length, image_side):
        length = jnp.minimum(jnp.round(length).astype(jnp.int32), image_side - 1)
        return jnp.where(erase, length, 0)

    def below(uniform, count):  # uniform over 0, ..., count - 1
        return jnp.floor(uniform * count).astype(jnp.int32)

    tall = side(jnp.sqrt(area * aspect), height)
    wide = side(jnp.sqrt(area / aspect), width)
    return Changes(
        flip=flip < _FLIP,
        top=below(top, (height - tall + 1).astype(jnp.float32)),
        left=below(left, (width - wide + 1).astype(jnp.float32)),
        height=tall,
        width=wide,
        down=below(down, 2 * _PADDING + 1) - _PADDING,
        right=below(right, 2 * _PADDING + 1) - _PADDING,
    )


def _trace(changes: Changes, height: int, width: int):
    """Goes back from output to stored pixels, so through the operations in reverse.

    Returns:
        Row [B, H] and column [B, W] of the stored pixel, which are out of the image
        where the output shows padding, and where there is a pixel at all [B, H, W].
    """
    flip, top, left, tall, wide, down, right = (part[:, None] for part in changes)
    rows = jnp.arange(height, dtype=jnp.int32)[None, :] + down
    columns = jnp.arange(width, dtype=jnp.int32)[None, :] + right
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    row_erased = (rows >= top) & (rows < top + tall)
    column_erased = (columns >= left) & (columns < left + wide)
    keep = row_inside[:, :, None] & column_inside[:, None, :]
    keep &= ~(row_erased[:, :, None] & column_erased[:, None, :])
    # Only now the flip: the rectangle was placed in the flipped image.
    return rows, jnp.where(flip, width - 1 - columns, columns), keep


def _gather_pixels(
    images: jax.Array, index: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
    """Looks every pixel up by itself.

    Args:
        images: stored, uint8 [n, H, W, C].
        index: of each image [B].
        rows: of the stored pixel that each output row shows [B, H].
        columns: likewise [B, W].

    Returns:
        uint8 [B, H, W, C], with any values where a row or column is out of the image.
    """
    # Three indices and not one flat position: 30% less time, and no overflow of int32
    # for large data sets. Clipping is free here.
    places = jnp.maximum(index, 0)[:, None, None], rows[:, :, None], columns[:, None, :]
    return images.at[places].get(mode="clip")


def _select_pixels(taken: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """The same of images that are looked up already, by products with rows of one 1.

    Each sum has one term that is not zero, and bfloat16 has all integers up to 256, so
    that the products are exact. A row or column that is out of the image gives zeros.

    Args:
        taken: uint8 [B, H, W, C].
        rows: as of `_gather_pixels`.
        columns: likewise.
    """
    channels_first = taken.transpose(0, 3, 1, 2).astype(jnp.bfloat16)
    chosen = lambda places, size: jax.nn.one_hot(places, size, dtype=jnp.bfloat16)
    by_row = jnp.einsum("bij,bcjw->bciw", chosen(rows, taken.shape[1]), channels_first)
    both = jnp.einsum("bkw,bciw->bcik", chosen(columns, taken.shape[2]), by_row)
    return both.astype(jnp.uint8).transpose(0, 2, 3, 1)


def pack(x: np.ndarray, platform: str) -> np.ndarray:
    """Images as the devices of a platform store them best; `Preparation` takes both.

    A TPU pads [n, H, W, C] to its registers, forty-fold where there are three channels,
    and looks single pixels up one after the other: 18.5 GB a minibatch of 1,024 images
    of CIFAR-10 by the compiler's count for a v5e, 0.25 GB from [n, C H W].

    Args:
        x: uint8 [n, H, W, C]; anything else is returned as it is.
        platform: of the devices.

    Returns:
        uint8 [n, C H W], or on a CPU the images themselves.
    """
    if platform == "cpu" or x.dtype != np.uint8 or x.ndim != 4:
        return x
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)


def _take(
    images: jax.Array, index: jax.Array, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """The images [B, H, W, C] of some positions, also of images that are packed."""
    taken = images.at[jnp.maximum(index, 0)].get(mode="clip")
    if shape is None or images.ndim == 4:
        return taken
    height, width, channels = shape
    return taken.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)


def _check(images: jax.Array, num_channels: int, shape: tuple[int, ...] | None):
    if images.dtype != jnp.uint8:
        raise TypeError(
            f"Images must be uint8 to be normalised, but they are {images.dtype}; "
            'use augmentation "raw" for images that are prepared already.'
        )
    if shape is not None and images.shape[1:] == (math.prod(shape),):
        return  # packed
    if images.ndim != 4 or images.shape[-1] != num_channels:
        raise ValueError(
            f"Images must have the shape [n, H, W, {num_channels}], as mean and std "
            f"have {num_channels} values, but theirs is {list(images.shape)}."
        )
