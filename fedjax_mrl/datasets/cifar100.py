"""CIFAR-100: 60,000 colour images of 32 x 32 pixels; the 100 fine labels.

Reference: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from fedjax_mrl.data import official
from fedjax_mrl.data.dataset import DatasetSpec

__all__ = ["cifar100"]

_LABEL_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy
bridge bus butterfly camel can castle caterpillar cattle chair chimpanzee clock
cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange
orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

cifar100 = DatasetSpec(
    name="cifar100",
    description="60,000 colour images, 32x32x3, 100 classes",
    image_shape=(32, 32, 3),
    label_names=tuple(_LABEL_NAMES.split()),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    num_train=50_000,
    num_test=10_000,
    augmentation="flip_erase_crop",
    tfds_name="cifar100:3.0.2",
    official=official.cifar(
        official.Batches(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            train=("train.bin",),
            test=("test.bin",),
            decode=official.binary(label_bytes=2),  # coarse, fine
        ),
        official.Batches(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            train=("train",),
            test=("test",),
            decode=official.pickled("fine_labels"),
        ),
    ),
    files=(
        "cifar-100-binary.tar.gz",
        "cifar-100-python.tar.gz",
        "cifar-100-binary/",
        "cifar-100-python/",
    ),
)
