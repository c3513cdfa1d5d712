"""Image files of every mode become the channels that a model takes."""

import zlib

import numpy as np
import pytest
from PIL import Image

from fedjax_mrl.data import image_files
from fedjax_mrl.data.error import DatasetError

SHAPE = (3, 2)  # height and width
RED = np.tile(np.uint8([200, 0, 0]), (*SHAPE, 1))
GREY = np.full(SHAPE, 60, np.uint8)


def saved(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("image", "channels", "pixel"),
    [
        (Image.fromarray(RED), 3, (200, 0, 0)),
        (Image.fromarray(RED), 1, (60,)),  # 0.299 of 200
        (Image.fromarray(RED).quantize(), 3, (200, 0, 0)),
        (Image.fromarray(GREY), 3, (60, 60, 60)),
        (Image.fromarray(GREY), 1, (60,)),
        (Image.fromarray(GREY).convert("LA"), 1, (60,)),
        (Image.fromarray(np.dstack([RED, GREY])), 3, (242, 195, 195)),  # on white
        (Image.fromarray(GREY > 0), 1, (255,)),
        (Image.fromarray(GREY.astype(np.uint16) * 257 + 9), 1, (60,)),
        (Image.fromarray(GREY.astype(np.uint16) * 257 + 9), 3, (60, 60, 60)),
    ],
)
def test_modes_become_channels(image, channels, pixel, tmp_path):
    path = saved(tmp_path, image)
    found = image_files.example(path, (*SHAPE, channels))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.broadcast_to(pixel, (*SHAPE, channels)))


def test_an_image_is_turned_as_its_camera_held_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    lying = Image.fromarray(np.uint8([[1, 2, 3], [4, 5, 6]]))
    path = saved(tmp_path, lying, exif=exif)
    found = image_files.example(path, (3, 2, 1))[..., 0]
    np.testing.assert_array_equal(found, [[4, 1], [5, 2], [6, 3]])


def test_resizing_takes_height_and_width_in_their_order(tmp_path):
    high = np.repeat(np.uint8([0, 255]), 10)[:, None].repeat(8, axis=1)  # [20, 8]
    found = image_files.example(
        saved(tmp_path, Image.fromarray(high)), (4, 2, 1), resize=True
    )
    assert found.shape == (4, 2, 1)
    assert (found[0] < 20).all() and (found[3] > 235).all()
    with pytest.raises(DatasetError, match=r"must have 2x4 pixels .* but has 8x20"):
        image_files.example(tmp_path / "a.png", (4, 2, 1))


def test_channels_that_no_image_file_has_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY))
    with pytest.raises(DatasetError, match=r"1 or 3 channels, but examples .* 2"):
        image_files.example(path, (*SHAPE, 2))


def test_a_picture_that_would_fill_memory_is_refused_by_its_size(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(image_files, "_MOST_PIXELS", 2)
    with pytest.raises(DatasetError, match="at most 2 pixels"):
        image_files.example(path, (*SHAPE, 1))


@pytest.mark.parametrize("fitting", [False, True], ids=["checksum", "decoder"])
def test_no_damage_of_a_png_becomes_pixels(fitting, tmp_path):
    shades = np.add.outer(np.arange(16) * 3, np.arange(16)).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(shades))
    sound = path.read_bytes()
    begin = sound.index(b"IDAT")
    end = begin + 4 + int.from_bytes(sound[begin - 4 : begin], "big")
    # Flips that pass the decoder are found by the chunk's checksum, and if that was
    # made to fit, a decoder that stops has to be heard.
    for place in (begin + 6,) if fitting else range(begin + 4, end + 4):
        damaged = bytearray(sound)
        damaged[place] ^= 0xFF if fitting else 1
        if fitting:
            damaged[end : end + 4] = zlib.crc32(damaged[begin:end]).to_bytes(4, "big")
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"a\.png must be an image"):
            image_files.example(path, (16, 16, 1))
