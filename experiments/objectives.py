"""FML with heterogeneous objectives: three tasks on the same images.

    python -m experiments.objectives [--rounds 15]

Nine clients see scikit-learn's digits, IID. A third tell the ten digits apart, a third
odd from even, a third digits below five from the others. They share only the extractor
of the meme and keep all headers. Prints the accuracy of each task, and that of the same
clients without mutual learning (alpha = beta = 1: nothing is learnt from each other).
"""

import argparse

import jax.numpy as jnp
import numpy as np

from fedjax_mrl import algorithms, datasets, models, partitions
from fedjax_mrl.data import images
from fedjax_mrl.learning import optimizers
from fedjax_mrl.protocol import Examples, Setup
from fedjax_mrl.simulation import evaluation, initialization, rounds
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.settings import RoundConfig

TASKS = {
    "digit": np.arange(10),
    "odd": np.arange(10) % 2,
    "below five": (np.arange(10) < 5).astype(int),
}


def run(num_rounds: int, *, seed: int = 0, **options: float) -> dict[str, float]:
    """Trains the nine clients; mean personal accuracy of each task's clients."""
    data = datasets.load("digits")
    shape = data.x_train.shape[1:]
    split = partitions.make("iid", data.y_train, data.y_test, 9, seed)

    def network(num_classes, width):
        return models.build("mlp", shape, num_classes, feature_dim=width, hidden=64)

    setup = Setup(
        shared=lambda width: network(10, width),
        feature_dim=64,
        num_classes=10,
        optimizer=optimizers.sgd(0.05),
        prepare=images.prepare(data.mean, data.std, "none"),
        num_rounds=num_rounds,
    )
    algorithm = algorithms.build("fml", setup, share="extractor", **options)
    groups = [
        Group(
            name,
            network(int(labels.max()) + 1, 64),
            np.arange(place, 9, 3, dtype=np.int32),
            labels.astype(np.int32),
        )
        for place, (name, labels) in enumerate(TASKS.items())
    ]
    config = RoundConfig(seed=seed, cohort_size=9, epochs=1, batch_size=16)
    train = Examples(jnp.asarray(data.x_train), jnp.asarray(data.y_train, jnp.int32))
    test = Examples(jnp.asarray(data.x_test), jnp.asarray(data.y_test, jnp.int32))
    play = rounds.make(algorithm, groups, train, list(split.train), config)
    evaluate = evaluation.make(
        algorithm,
        groups,
        evaluation.EvaluationSet(test, list(split.test), setup.prepare.test),
    )
    state = initialization.init(algorithm, groups, config)
    for _ in range(num_rounds):
        state, _ = play(state)
    accuracy = evaluate(state).accuracy[0, 0]  # point local, head personal
    return {group.name: float(accuracy[group.clients].mean()) for group in groups}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    wanted = parser.parse_args().rounds
    mutual, alone = run(wanted), run(wanted, alpha=1.0, beta=1.0)
    for task in TASKS:
        print(f"{task:12}mutual {mutual[task]:.4f}  alone {alone[task]:.4f}")
