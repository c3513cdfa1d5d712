"""Small clients: many of them, each with a small network and few images."""

import importlib.util
import sys
from typing import Any

from experiments.benchmarks.bench import Bench
from experiments.benchmarks.report import Table

MODES = ("one thread", "threads", "processes")


def lenet(
    input_shape: tuple[int, ...], num_classes: int, *, lowering: str = "auto"
) -> Any:
    """LeNet with 6 and 16 filters, 120, 84 and 10 units."""
    from fedjax_mrl.models import cnn

    sizes = {"channels": (6, 16), "hidden": 120, "feature_dim": 84}
    return cnn.cnn("lenet", input_shape, num_classes, lowering=lowering, **sizes)


def small(bench: Bench) -> list[Table]:
    """BlazeFL's own benchmark: FedAvg of a hundred clients, all of which take part."""
    clients, train, epochs, batch = bench.size((100, 500, 5, 50), (3, 8, 1, 4))
    split = {"clients": clients, "train": train, "test": 1}
    rounds = {"epochs": epochs, "batch_size": batch}
    model = f"{__name__}:lenet" if bench.data_dir else "mlp"  # digits are too small
    ours = rounds | {"algorithm": "fedavg", "models": model, "shared_model": model}
    ours |= {"augmentation": "none", "momentum": 0.0, "weight_decay": 0.0}
    contenders = {"ours": bench.ours(split, ours)}
    notes = ()
    if bench.data_dir and installed():
        for mode in MODES:
            options = rounds | {"mode": mode}
            contender = bench.rival(split, "", **options)
            name = f"BlazeFL, {mode}"
            contenders[name] = contender._replace(setup="blaze:rounds")
    else:
        notes = (
            "BlazeFL is left out: it needs CIFAR-10, Python 3.12 or later and the "
            'extra: python -m pip install -e ".[blazefl]".',
        )
    costs, _ = bench.in_turn(contenders)
    title = f"Round of FedAvg, {clients} LeNets, {train} images each, E = {epochs}"
    return [Table(f"{title}, B = {batch}", costs, baseline="ours", notes=notes)]


def installed() -> bool:
    """Whether BlazeFL and PyTorch are there."""
    needed = ("blazefl", "torch")
    there = all(importlib.util.find_spec(name) for name in needed)
    return there and sys.version_info >= (3, 12)
