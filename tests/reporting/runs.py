"""Run directories with chosen numbers, which nobody trained."""

import pathlib

import numpy as np

from fedjax_mrl.config import RunConfig
from fedjax_mrl.runs.directory import RunDirectory


def write(path: pathlib.Path, accuracy, **options) -> pathlib.Path:
    """Writes the tables of a run.

    Args:
        path: the folder.
        accuracy: of every client in every round [T, N].
        options: of the configuration.
    """
    accuracy = np.asarray(accuracy, float)
    rounds, clients = accuracy.shape
    options = {"num_clients": clients, "rounds": rounds} | options
    config = RunConfig(**options)
    directory = RunDirectory.create(path, config=config.to_json())
    for place, row in enumerate(accuracy):
        number = place + 1
        directory.append("rounds.csv", [_round(number, clients, config.algorithm)])
        directory.append("metrics.csv", [_metrics(number, row)])
        lines = [
            {
                "round": number,
                "client": client,
                "architecture": config.models[client % len(config.models)],
                "point": "local",
                "head": "personal",
                "num_train": 10,
                "num_test": 1000,
                "correct": int(1000 * value),
                "accuracy": float(value),
                "loss": 1.0,
            }
            for client, value in enumerate(row)
        ]
        directory.append("clients.csv", lines)
    directory.unlock()
    return path


def _round(number, clients, algorithm):
    sent = 0 if algorithm == "standalone" else 1000 * clients
    row = {"round": number, "seconds": 1.0, "participants": clients, "train_loss": 1.0}
    row |= {"bytes_down": sent, "bytes_up": sent, "flops": 10**9, "digest": ""}
    row |= {"dropped": 0, "stragglers": 0, "rejected": 0, "seconds_local": 1.0}
    names = ("seconds_server", "seconds_evaluation", "seconds_writing")
    return row | dict.fromkeys(names, 0.0)


def _metrics(number, row):
    return {
        "round": number,
        "point": "local",
        "head": "personal",
        "clients": row.size,
        "mean_accuracy": float(row.mean()),
        "std_accuracy": float(row.std()),
        "weighted_accuracy": float(row.mean()),
        "mean_loss": 1.0,
        "worst_accuracy": float(row.min()),
        "p10_accuracy": float(np.percentile(row, 10)),
    }


def comparison(folder: pathlib.Path, seeds=3, rounds=4, clients=8) -> pathlib.Path:
    """A comparison of FML and Standalone, of which FML is better by 0.1 on average."""
    draw = np.random.default_rng(0)
    for seed in range(seeds):
        alone = draw.uniform(0.3, 0.7, (rounds, clients)).round(3)
        better = (alone + draw.uniform(0, 0.2, (rounds, clients))).round(3)
        write(folder / f"standalone-{seed}", alone, algorithm="standalone", seed=seed)
        write(folder / f"fml-{seed}", better, algorithm="fml", seed=seed)
    return folder
