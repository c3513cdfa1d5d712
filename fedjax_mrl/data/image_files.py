"""Image files as pixels, by one rule for every colour mode.

An image is taken as a viewer shows it: turned as its EXIF orientation says, its palette
looked up, transparent parts on white, CMYK and other colours as RGB, 16 bits as 8, and
of an animation the first frame.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from fedjax_mrl.data.dataset import border
from fedjax_mrl.data.error import DatasetError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
# Read by content, whatever the ending; nothing that runs another program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_MOST_PIXELS = 2**26  # of one image: a small file can be made to unpack to gigabytes
_ORIENTATION = 0x0112  # the tag in EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    """Height and width as shown, and whether the image is grey."""

    height: int
    width: int
    grey: bool


def header(path: Path) -> Header:
    """Reads what a file says of its image, without the pixels.

    Raises:
        DatasetError: if it holds no image, or one of too many pixels.
    """
    with _open(path) as image:
        width, height = image.size
        if _turn(image) in (5, 6, 7, 8):
            width, height = height, width
        return Header(height, width, image.mode[0] in "1LI")


def read(path: Path, into: np.ndarray, *, resize: bool) -> None:
    """Reads the pixels of a file.

    Args:
        path: of the file.
        into: uint8 [H, W, 1] for grey or [H, W, 3]; is filled.
        resize: whether the image may have another size, and is brought to this one.

    Raises:
        DatasetError: if the image is damaged, or of another size.
    """
    height, width, channels = into.shape
    with _open(path) as image:
        image.verify()  # checksums where a format has them; its pixels are gone then
    with _open(path) as image:
        shown = _shown(image, "L" if channels == 1 else "RGB")
        if resize:
            shown = shown.resize((width, height), Image.Resampling.BILINEAR)
        into[...] = np.asarray(shown).reshape(into.shape)


def example(path: Path, shape: tuple[int, ...], *, resize: bool = False) -> np.ndarray:
    """Reads one image file as an example for a trained model.

    Args:
        path: of the file.
        shape: (H, W, C) that the model takes.
        resize: whether to bring another size to this one, whatever that does to the
            proportions.

    Returns:
        uint8 [H, W, C].

    Raises:
        DatasetError: for a file that is no image, damaged, or of another size, and for
            a model of other channels than image files have.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise DatasetError(
            f"Image files have 1 or 3 channels, but examples here have {channels}; "
            "give arrays in an npy or npz file."
        )
    if path.is_dir():
        raise DatasetError(
            f"{path} is a folder; give the image files in it, as {path}/*.png."
        )
    if not path.exists():
        raise DatasetError(f"There is no file {path}.")
    found = header(path)
    if not resize and (found.height, found.width) != (height, width):
        raise DatasetError(
            f"{path} must have {width}x{height} pixels (width x height), as the images "
            f"that the model was trained on, but has {found.width}x{found.height}; "
            "resize it, or give --resize."
        )
    into = np.empty(shape, np.uint8)
    read(path, into, resize=resize)
    return into


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """The image of a file; whatever its decoder says of damage is one sentence."""
    name = str(path) if str(path).isprintable() else repr(str(path))
    with border(name, "an image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images, and of odd metadata
        try:
            opened = Image.open(path, formats=_FORMATS)
        except Image.DecompressionBombError:
            raise _too_large(path, "") from None
        except UnidentifiedImageError:
            raise ValueError(f"it begins as none of {', '.join(_FORMATS)}") from None
        with opened as image:
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise _too_large(path, f" of {height} x {width}")
            yield image


def _too_large(path: Path, size: str) -> DatasetError:
    return DatasetError(
        f"An image may have at most {_MOST_PIXELS:,} pixels, but {path} claims more"
        f"{size}; make it smaller, or remove it."
    )


def _turn(image: Image.Image) -> int:
    """How the image is turned, by the numbers of EXIF; 1 is not at all."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata of a sound image
        return 1


def _shown(image: Image.Image, mode: str) -> Image.Image:
    """The image as a viewer shows it, in mode L or RGB."""
    image.load()  # before its metadata, whose damage is forgiven: they decode it too
    turn = _TURNS.get(_turn(image))
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, above)
    image = image.convert(mode)
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits in 8: the nearest of 256 shades."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its pixels span {values.min()}..{values.max()}")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
