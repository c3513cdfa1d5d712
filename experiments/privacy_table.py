"""Accuracy against epsilon: FedMRL, FML, FedAvg and FedProto with differential privacy.

    python -m experiments.privacy_table --out runs/privacy
    python -m experiments.privacy_table --dataset cifar10 --data-dir DIR --out runs/p10

Many small clients, of which half take part in a round: with client-level privacy a few
clients can learn nothing from each other. Networks are small for the same reason, since
noise has the size of the root of their parameters. Training alone (Standalone) sends
nothing and is the line that a private method has to be above.

Clips were chosen by looking at the norms of two rounds without privacy, which no
epsilon accounts for. Each method and epsilon leaves a file in --out and is not run
again.
"""

import argparse
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import fedjax_mrl as fm
from fedjax_mrl.models import mlp
from fedjax_mrl.privacy.account import Account

DELTA, RATE = 1e-3, 0.5
# Head of the table, and what `--dp` gets beside noise and delta.
METHODS = {
    "fedavg": ("global", {"clip": 1.0}),
    "fedmrl": ("mix_large", {"clip": 1.0}),
    "fml": ("personal", {"clip": 1.0}),
    "fedproto": ("local", {"clip": 5.0, "presence": 2.0}),
    "standalone": ("local", {"clip": 1.0}),
}
SETTINGS = {
    "digits": {"num_clients": 100, "rounds": 20, "epochs": 3, "batch_size": 8},
    "cifar10": {"num_clients": 100, "rounds": 10, "epochs": 2, "batch_size": 25},
}


def network(hidden: int) -> Any:
    """A small MLP for any data."""
    return lambda shape, classes: mlp.mlp(shape, classes, feature_dim=16, hidden=hidden)


def options(args: argparse.Namespace, method: str) -> dict[str, Any]:
    """The settings of a run without privacy."""
    own = {**SETTINGS[args.dataset]}
    if args.rounds is not None:
        own["rounds"] = args.rounds
    if args.limit_train is not None:
        own |= {"limit_train": args.limit_train, "limit_test": args.limit_train // 5}
    if method == "fedmrl":
        own["shared_dim"] = 16
    one = method == "fedavg"  # needs one architecture
    return {
        **own,
        "models": [network(16)] if one else [network(16), network(32)],
        "shared_model": network(16),
        "dataset": args.dataset,
        "data_dir": args.data_dir,
        "participation": RATE,
        "partition": "dirichlet:0.5",
        "learning_rate": 0.05,
        "eval_every": own["rounds"],
    }


@functools.cache
def noise_for(epsilon: float, rounds: int) -> float:
    """The least noise with which so many rounds cost at most epsilon."""
    return Account(1.0, 0.0, DELTA, "fixed", RATE).noise_for(epsilon, rounds)


def result(args: argparse.Namespace, method: str, epsilon: float | None) -> dict:
    """Accuracies of all seeds after the last round, played or from its file."""
    path = args.out / f"{method}-{'none' if epsilon is None else f'{epsilon:g}'}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    settings = options(args, method)
    noise = None
    if epsilon is not None:
        noise = noise_for(epsilon, settings["rounds"])
        settings["dp"] = {"noise": noise, "delta": DELTA, **METHODS[method][1]}
    found = fm.compare([method], seeds=args.seeds, **settings)
    accuracies: dict[str, list[float]] = {}
    for history in found.histories.values():
        for row in history.rows("metrics"):
            key = f"{row['point']} {row['head']}"
            accuracies.setdefault(key, []).append(float(row["mean_accuracy"]))
    made = {"noise": noise, "accuracies": accuracies}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(made, indent=1), encoding="utf-8")
    os.replace(partial, path)
    return made


def table(found: Mapping[tuple[str, float | None], dict]) -> str:
    """A row for each method, a column for each epsilon: mean and deviation in %."""
    epsilons = list(dict.fromkeys(epsilon for _, epsilon in found))
    named = ["none" if e is None else f"{e:g}" for e in epsilons]
    lines = [f"| epsilon | {' | '.join(named)} |", "| --- |" + " --- |" * len(named)]
    noises = {e: of["noise"] for (_, e), of in found.items()}
    cells = [f"{noises[e]:g}" if e else "0" for e in epsilons]
    lines.append(f"| noise / clip | {' | '.join(cells)} |")
    for method in dict.fromkeys(name for name, _ in found):
        head, cells = METHODS[method][0], []
        for epsilon in epsilons:
            if (method, epsilon) not in found:
                cells.append("the same")
                continue
            each = found[method, epsilon]["accuracies"][f"local {head}"]
            spread = f" ± {100 * np.std(each, ddof=1):.1f}" if len(each) > 1 else ""
            cells.append(f"{100 * np.mean(each):.1f}{spread}")
        lines.append(f"| {method} ({head}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The words of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--dataset", choices=SETTINGS, default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epsilons", nargs="*", type=float, default=[100, 10, 3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--limit-train", type=int)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Plays what is missing and writes table.md."""
    args = arguments(words)
    args.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for epsilon in (None, *args.epsilons):
        for method in args.methods:
            if method == "standalone" and epsilon is not None:
                continue  # sends nothing
            found[method, epsilon] = result(args, method, epsilon)
            print(method, epsilon, found[method, epsilon], flush=True)
    (args.out / "table.md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
