"""Image files as arrays that networks take."""

import pathlib
import warnings

import numpy as np
from PIL import Image, ImageOps

from fedjax_mrl.data.error import DatasetError

# Pillow's modes by the number of channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read(
    path: pathlib.Path, shape: tuple[int, ...], *, resize: bool = False
) -> np.ndarray:
    """Reads one image file.

    It is turned as its camera held it (EXIF). For three channels it becomes RGB: grey
    is repeated, transparency is dropped. For one it becomes grey, 0.299 R + 0.587 G +
    0.114 B. Of 16 bits the upper 8 are kept; of an animation its first picture.

    Args:
        path: of anything that Pillow reads.
        shape: (H, W, C) that it must have.
        resize: bring another size to this one, whatever that does to its proportions.

    Returns:
        uint8 [H, W, C].

    Raises:
        DatasetError: for a file that is no image, damaged, or of another size.
    """
    height, width, channels = shape
    if channels not in _MODES:
        raise DatasetError(
            f"Image files have 1, 3 or 4 channels, but examples here have {channels}; "
            "give arrays in an npy or npz file."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, which is checked below
            with Image.open(path) as image:
                turned = image.getexif().get(0x0112, 1) >= 5  # by a quarter
                size = image.size[::-1] if turned else image.size
                if size != (width, height) and not resize:
                    raise _of_another_size(path, size, (width, height))
                image = _in_mode(ImageOps.exif_transpose(image), _MODES[channels])
                if image.size != (width, height):
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.array(image, np.uint8)
    except DatasetError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DatasetError(
            f"{path} is a folder; give the image files in it, as {path}/*.png."
        ) from None
    except Image.UnidentifiedImageError:
        raise DatasetError(
            f"{path} is no image, or of a format that Pillow cannot read."
        ) from None
    except Exception as error:  # damage has no closed list of what it makes it raise
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise DatasetError(f"Cannot read the image {path}: {reason}.") from None
    return pixels.reshape(shape)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in a mode of 8 bits a channel."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError(
            "its floating point numbers have no fixed black and white; give arrays in "
            "an npy or npz file"
        )
    return image.convert(mode)


def _of_another_size(
    path: pathlib.Path, size: tuple[int, int], wanted: tuple[int, int]
) -> DatasetError:
    return DatasetError(
        f"{path} must have {wanted[0]}x{wanted[1]} pixels (width x height), as the "
        f"images that the model was trained on, but has {size[0]}x{size[1]}; resize "
        "it, or give --resize."
    )
