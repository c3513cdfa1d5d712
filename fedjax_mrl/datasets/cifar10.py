"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in 10 classes.

Mean and standard deviation are those of the published federated experiments with model
heterogeneity (the ImageNet values), so that results compare.

Reference: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from fedjax_mrl.data import official
from fedjax_mrl.data.dataset import DatasetSpec

__all__ = ["cifar10"]

_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

cifar10 = DatasetSpec(
    name="cifar10",
    description="60,000 colour images, 32x32x3, 10 classes",
    image_shape=(32, 32, 3),
    label_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    num_train=50_000,
    num_test=10_000,
    augmentation="flip_erase_crop",
    tfds_name="cifar10:3.0.2",
    official=official.cifar(
        official.Batches(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            train=tuple(f"{name}.bin" for name in _BATCHES),
            test=("test_batch.bin",),
            decode=official.binary(label_bytes=1),
        ),
        official.Batches(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            train=_BATCHES,
            test=("test_batch",),
            decode=official.pickled("labels"),
        ),
    ),
    files=(
        "cifar-10-binary.tar.gz",
        "cifar-10-python.tar.gz",
        "cifar-10-batches-bin/",
        "cifar-10-batches-py/",
    ),
)
