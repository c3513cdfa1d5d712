"""Small clients: many of them, each with a small network and few images."""

import importlib.util
import sys
from typing import Any

import flax.linen as nn
import jax

from experiments.benchmarks.bench import Bench
from experiments.benchmarks.report import Table
from fedjax_mrl.models import cnn, layers
from fedjax_mrl.ops import conv

MODES = ("one thread", "threads", "processes")
# Of both tasks: plain SGD on images as they are.
_PLAIN = {
    "algorithm": "fedavg",
    "augmentation": "none",
    "momentum": 0.0,
    "weight_decay": 0.0,
}


def lenet(
    input_shape: tuple[int, ...], num_classes: int, *, lowering: str = "auto"
) -> Any:
    """LeNet with 6 and 16 filters, 120, 84 and 10 units."""
    sizes = {"channels": (6, 16), "hidden": 120, "feature_dim": 84}
    return cnn.cnn("lenet", input_shape, num_classes, lowering=lowering, **sizes)


class _Extractor(nn.Module):
    lowering: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(layers.Conv(32, 3, lowering=self.lowering, name="conv1")(x))
        x = layers.ConvReluPool(64, 3, self.lowering, name="conv2")(x)
        x = x.reshape(x.shape[0], -1)
        return jax.nn.relu(layers.Linear(128, name="fc")(x))


def pfl_network(
    input_shape: tuple[int, ...], num_classes: int, *, lowering: str = "auto"
) -> Any:
    """Convolutions of 32 and 64 filters, a pooling, then 128 and 10 units."""
    extractor = _Extractor(conv.resolve(lowering))
    return layers.model("pfl_network", extractor, input_shape, num_classes, 128)


def small(bench: Bench) -> list[Table]:
    """Two libraries on the tasks of their own benchmarks."""
    return [_blazefl(bench), _pfl(bench)]


def _blazefl(bench: Bench) -> Table:
    """FedAvg of a hundred clients, all of which take part."""
    clients, train, epochs, batch = bench.size((100, 500, 5, 50), (3, 8, 1, 4))
    split = {"clients": clients, "train": train, "test": 1}
    rounds = {"epochs": epochs, "batch_size": batch}
    contenders = {"ours": bench.ours(split, _PLAIN | rounds | _model(bench, "lenet"))}
    notes = ()
    if bench.data_dir and sys.version_info >= (3, 12) and _installed("blazefl"):
        for mode in MODES:
            name = f"BlazeFL, {mode}"
            contenders[name] = bench.rival(split, "blaze:rounds", **rounds, mode=mode)
    else:
        notes = (
            "BlazeFL is left out: it needs CIFAR-10, Python 3.12 or later and the "
            'extra: python -m pip install -e ".[blazefl]".',
        )
    costs, _ = bench.in_turn(contenders)
    title = f"Round of FedAvg, {clients} LeNets, {train} images each, E = {epochs}"
    return Table(f"{title}, B = {batch}", costs, baseline="ours", notes=notes)


def _pfl(bench: Bench) -> Table:
    """FedAvg of a thousand clients with 50 images each, of which 50 take part."""
    clients, train, cohort, batch = bench.size((1000, 50, 50, 10), (4, 8, 2, 4))
    split = {"clients": clients, "train": train, "test": 1}
    rounds = {"epochs": 1, "batch_size": batch}
    config = {"participation": cohort / clients, "learning_rate": 0.1}
    model = _model(bench, "pfl_network")
    contenders = {"ours": bench.ours(split, _PLAIN | rounds | config | model)}
    notes = ()
    if bench.data_dir and _installed("pfl"):
        for name, cores in (("pfl", bench.cores), ("pfl, one thread", 1)):
            contenders[name] = bench.rival(
                split, "pfl_baseline:rounds", **rounds, cohort=cohort, threads=cores
            )
    else:
        notes = (
            "pfl is left out: it needs CIFAR-10 and the extra: "
            'python -m pip install -e ".[pfl]".',
        )
    costs, _ = bench.in_turn(contenders)
    title = f"Round of FedAvg, {cohort} of {clients} clients, {train} images each"
    return Table(f"{title}, E = 1, B = {batch}", costs, baseline="ours", notes=notes)


def _model(bench: Bench, name: str) -> dict[str, str]:
    """The network of all clients; the digits are too small for convolutions."""
    model = f"{__name__}:{name}" if bench.data_dir else "mlp"
    return {"models": model, "shared_model": model}


def _installed(library: str) -> bool:
    """Whether it and PyTorch are there."""
    return all(importlib.util.find_spec(name) for name in (library, "torch"))
