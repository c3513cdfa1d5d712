"""pfl as a contender: its own FedAvg, with the task of its own CIFAR-10 benchmark.

Runs in a worker; needs the extra `pfl`. All images lie in memory as tensors, of which a
user's are slices, as in pfl's benchmark.
"""

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.internal.ops.distributed import NotDistributedContext
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn import functional

from experiments.benchmarks import rivals

Setup = tuple[Callable[[], float], dict[str, Any]]


class Network(nn.Module):
    """Convolutions of 32 and 64 filters, a pooling, then 128 and 10 units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc, self.head = nn.Linear(64 * 14 * 14, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        x = functional.max_pool2d(x, 2).flatten(1)
        return self.head(functional.relu(self.fc(x)))

    def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> Any:
        """The mean over a minibatch, as pfl asks for it."""
        return functional.cross_entropy(self(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = True) -> dict:
        """Nothing is measured."""
        return {}


class Clock(TrainingProcessCallback):
    """When each round ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Notes the time; training goes on."""
        self.ends.append(time.perf_counter())
        return False, Metrics()


def rounds(
    *,
    dataset: str,
    data_dir: str | None,
    split: dict[str, int],
    cores: int,
    threads: int,
    cohort: int,
    epochs: int,
    batch_size: int,
) -> Setup:
    """Seconds of a round; nobody is tested.

    Args:
        dataset: a name, see `fedjax_mrl.datasets`.
        data_dir: where it lies.
        split: see `bench.positions`.
        cores: of the machine.
        threads: that it uses.
        cohort: users of a round.
        epochs: E.
        batch_size: B.
    """
    torch.set_num_threads(threads)
    # In a process that another one began pfl sets nothing, taking it for a data loader.
    pytorch_ops.distributed = NotDistributedContext()
    users = rivals.of_clients(dataset, data_dir, split)
    data = FederatedDataset.from_slices(
        users, get_user_sampler("random", range(len(users)))
    )
    network = Network()
    model = PyTorchModel(
        network, torch.optim.SGD, torch.optim.SGD(network.parameters(), 1.0)
    )
    options = {
        # The first round is not timed: pfl asks every user for metrics in it.
        "algorithm_params": NNAlgorithmParams(2, 2, cohort, 0),
        "backend": SimulatedBackend(data, data, [WeightByUser()]),
        "model": model,
        "model_train_params": NNTrainHyperParams(
            local_learning_rate=0.1,
            local_num_epochs=epochs,
            local_batch_size=batch_size,
        ),
        "model_eval_params": NNEvalHyperParams(local_batch_size=None),
    }

    def measure() -> float:
        clock = Clock()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints every round
            FederatedAveraging().run(callbacks=[clock], **options)
        return clock.ends[1] - clock.ends[0]

    measure()
    return measure, {}
