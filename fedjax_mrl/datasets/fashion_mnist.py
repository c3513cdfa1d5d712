"""Fashion-MNIST: 70,000 grey images of 28 x 28 pixels, articles of clothing.

Reference: Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms, 2017, https://arxiv.org/abs/1708.07747
"""

from fedjax_mrl.data import idx
from fedjax_mrl.data.dataset import DatasetSpec

__all__ = ["fashion_mnist"]

fashion_mnist = DatasetSpec(
    name="fashion_mnist",
    description="70,000 articles of clothing, 28x28x1, 10 classes",
    image_shape=(28, 28, 1),
    label_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mean=(0.2860,),
    std=(0.3530,),
    num_train=60_000,
    num_test=10_000,
    tfds_name="fashion_mnist:3.0.1",
    official=idx.idx(
        folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
        first_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    ),
    files=idx.FILES,
)
