"""What all cases share: the data, the sizes, and how contenders are described."""

import dataclasses
from typing import Any, TypeVar

from experiments.benchmarks import workers
from experiments.benchmarks.workers import Contender

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Bench:
    """Settings of a run of the program.

    Attributes:
        dataset: a name, see `fedjax_mrl.datasets`.
        data_dir: where it lies.
        repeats: repetitions of every contender.
        quick: everything small, only to try the program.
        cores: of this machine, all of which every contender may use.
        torch: whether PyTorch and torchvision are installed.
    """

    dataset: str
    data_dir: str | None
    repeats: int
    quick: bool
    cores: int
    torch: bool

    def size(self, full: T, quick: T) -> T:
        """One of the two."""
        return quick if self.quick else full

    @property
    def data(self) -> dict[str, Any]:
        """Where the images are."""
        return {"dataset": self.dataset, "data_dir": self.data_dir}

    def ours(
        self,
        split: dict[str, int],
        config: dict[str, Any],
        setup: str = "rounds",
        worker: str = "",
        fresh: bool = False,
        **options: Any,
    ) -> Contender:
        """This package, as the command line sets it up; see `ours`."""
        config = self.data | {"num_clients": split["clients"]} | config
        if self.quick:  # one architecture compiles sooner than five
            config = {"models": "cnn5"} | config
        options |= {"split": split, "config": config}
        return Contender(f"ours:{setup}", options, worker, fresh)

    def rival(self, split: dict[str, int], setup: str, **options: Any) -> Contender:
        """Something else in PyTorch, on the same images; `setup` as of a Contender."""
        options |= {"split": split, "cores": self.cores, **self.data}
        return Contender(setup, options)

    def in_turn(
        self, contenders: dict[str, Contender]
    ) -> tuple[dict[str, list[float]], dict[str, dict[str, Any]]]:
        """Costs and facts by contender; see `workers.in_turn`."""
        return workers.in_turn(contenders, self.repeats)


def load(dataset: str, data_dir: str | None) -> Any:
    """The images, as the package reads them."""
    from fedjax_mrl import datasets

    return datasets.load(dataset, data_dir)


def positions(data: Any, clients: int, train: int, test: int) -> list[tuple]:
    """The same number of images for every client, the same split for all contenders.

    Args:
        data: a `fedjax_mrl.data.dataset.Dataset`.
        clients: N.
        train: training images of each.
        test: test images of each.

    Returns:
        Positions of training and of test images, each N arrays, int32 and sorted.

    Raises:
        ValueError: if there are fewer images.
    """
    import numpy as np

    parts = []
    for size, labels in ((train, data.y_train), (test, data.y_test)):
        if clients * size > len(labels):
            raise ValueError(
                f"{clients} clients with {size} images each need more than the "
                f"{len(labels)} images of {data.name}."
            )
        order = np.random.default_rng(0).permutation(len(labels)).astype(np.int32)
        cut = order[: clients * size].reshape(clients, size)
        parts.append(tuple(np.sort(cut, axis=1)))
    return parts
