"""MNIST: 70,000 grey images of 28 x 28 pixels, handwritten digits.

Reference: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to
document recognition, Proceedings of the IEEE, 1998, http://yann.lecun.com/exdb/mnist/
"""

from fedjax_mrl.data import idx
from fedjax_mrl.data.dataset import DatasetSpec

__all__ = ["mnist"]

mnist = DatasetSpec(
    name="mnist",
    description="70,000 handwritten digits, 28x28x1, 10 classes",
    image_shape=(28, 28, 1),
    label_names=tuple("0123456789"),
    mean=(0.1307,),
    std=(0.3081,),
    num_train=60_000,
    num_test=10_000,
    tfds_name="mnist:3.0.1",
    official=idx.idx(
        folders=("mnist", "MNIST/raw", "MNIST"),
        first_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    ),
    files=idx.FILES,
)
