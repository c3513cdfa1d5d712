"""BlazeFL as a contender: its own FedAvg, with the task of its own benchmark.

Runs in a worker; needs the extra `blazefl`, which is for Python 3.12 and later. Images
are prepared once and lie in memory as tensors, so that no loader decodes any.
"""

import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from blazefl import core
from blazefl.contrib import fedavg
from torch import nn
from torch.nn import functional
from torch.utils import data as loading

from experiments.benchmarks import rivals

Setup = tuple[Callable[[], float], dict[str, Any]]


class LeNet(nn.Module):
    """Convolutions of 6 and 16 filters, then 120, 84 and 10 units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 120), nn.Linear(120, 84)
        self.head = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.head(functional.relu(self.fc2(x)))


class Selector:
    """Makes the model, whatever name is asked for."""

    def select_model(self, model_name: str) -> nn.Module:
        """A new LeNet."""
        return LeNet()


class Clients:
    """The images of every client, as BlazeFL asks for them."""

    def __init__(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._parts = [loading.TensorDataset(*part) for part in parts]

    def get_dataset(self, type_: str, cid: int | None) -> loading.Dataset:
        """The images of one client; of the first if none is named."""
        return self._parts[cid or 0]

    def set_dataset(self, type_: str, cid: int | None, dataset: Any) -> None:
        """Takes no notice: nothing is changed."""

    def get_dataloader(
        self,
        type_: str,
        cid: int | None,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> loading.DataLoader:
        """Shuffled minibatches of one client."""
        return loading.DataLoader(
            self.get_dataset(type_, cid), batch_size, shuffle=True, generator=generator
        )


def rounds(
    *,
    dataset: str,
    data_dir: str | None,
    split: dict[str, int],
    cores: int,
    mode: str,
    epochs: int,
    batch_size: int,
) -> Setup:
    """Seconds of a round in which every client takes part; nobody is tested.

    Args:
        dataset: a name, see `fedjax_mrl.datasets`.
        data_dir: where it lies.
        split: see `bench.positions`.
        cores: that it may use.
        mode: "one thread", "threads" or "processes", as many as there are cores and
            each with a thread of its own.
        epochs: E.
        batch_size: B.
    """
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"  # of its processes too
    torch.set_num_threads(1)
    clients = Clients(rivals.of_clients(dataset, data_dir, split))
    common = {
        "model_selector": Selector(),
        "model_name": "lenet",
        "dataset": clients,
        "device": "cpu",
        "num_clients": split["clients"],
        "batch_size": batch_size,
        "seed": 0,
    }
    server = fedavg.FedAvgBaseServerHandler(
        global_round=1000, sample_ratio=1.0, **common
    )
    trainer = _trainer(mode, cores, common | {"epochs": epochs, "lr": 0.1})

    def measure() -> float:
        started = time.perf_counter()
        trainer.local_process(server.downlink_package(), server.sample_clients())
        for package in trainer.uplink_package():
            server.load(package)
        return time.perf_counter() - started

    measure()
    return measure, {}


def _trainer(mode: str, cores: int, options: dict[str, Any]) -> Any:
    if mode == "one thread":
        return fedavg.FedAvgBaseClientTrainer(**options)
    if mode == "threads":
        return fedavg.FedAvgThreadPoolClientTrainer(num_parallels=cores, **options)
    folder = pathlib.Path(tempfile.mkdtemp())
    make = functools.partial(fedavg.FedAvgProcessPoolClientTrainer, **options)
    return make(
        num_parallels=cores,
        share_dir=folder / "share",
        state_dir=folder / "state",
        ipc_mode=core.IPCMode.SHARED_MEMORY,
    )
