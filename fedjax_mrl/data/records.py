"""The records of a prepared TFDS data set: image, label, and place in the order.

Images are PNG, which is what TFDS itself stores and every reader of it decodes; 60,000
of CIFAR-10 take seconds.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from fedjax_mrl.data.dataset import Dataset, DatasetSpec

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's names, by channels


def encode(pixels: np.ndarray) -> bytes:
    """Encodes an image uint8 [H, W, C] as PNG."""
    stream = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def decode(contents: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decodes a PNG or JPEG to uint8 [H, W, C].

    Raises:
        ValueError: for an image of another size; Pillow's errors for a damaged one.
    """
    # Naming the formats spares Pillow the search among all it knows.
    with Image.open(io.BytesIO(contents), formats=["PNG", "JPEG"]) as image:
        mode = _MODES[shape[-1]]
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    if pixels.shape[:2] != shape[:2]:
        raise ValueError(f"an image is {list(pixels.shape[:2])}, not {list(shape[:2])}")
    return pixels.reshape(shape)


def order_by_id(ids: Sequence[bytes]) -> np.ndarray:
    """Returns the indices [n] that sort records named "train_00042" by position."""
    return np.argsort([int(name.rpartition(b"_")[2]) for name in ids])


def order_by_hash(part: str, count: int) -> np.ndarray:
    """Returns the indices [n] that undo the shuffling of TFDS.

    TFDS sorts records by the MD5 of the part's name and the record's key, and the key
    of data sets without names is the position in the official files.
    """
    keys = [f"{part}{i}".encode() for i in range(count)]
    hashes = [hashlib.md5(key, usedforsecurity=False).digest() for key in keys]
    return np.argsort(np.argsort(np.asarray(hashes, "S16")))


def builder(tfds: ModuleType, spec: DatasetSpec, dataset: Dataset) -> type:
    """Returns the class with which TFDS writes `dataset`.

    Args:
        tfds: the module tensorflow_datasets, which only `tfds_package` imports.
        spec: gives name, version, description and image shape.
        dataset: the arrays.

    Returns:
        A `tfds.core.GeneratorBasedBuilder` that needs no TensorFlow.
    """
    title, number = spec.builder

    # Not registered: the official builder of this name stays what TFDS finds.
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = title
        VERSION = tfds.core.Version(number)

        def _info(self) -> Any:
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(
                    shape=spec.image_shape, encoding_format="png"
                ),
                "label": tfds.features.ClassLabel(names=list(dataset.label_names)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=spec.description,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,  # the official order
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager  # the arrays are in memory
            return {part: self._generate_examples(part) for part in ("train", "test")}

        def _generate_examples(self, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
            x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
            for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
                # Bytes, not an array: TFDS encodes arrays with TensorFlow.
                image = encode(pixels)
                yield i, {"id": f"{part}_{i:05d}", "image": image, "label": int(label)}

    return Builder
