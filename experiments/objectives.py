"""FML with heterogeneous objectives: three tasks on the same images.

    python -m experiments.objectives [--rounds 15]

Nine clients see scikit-learn's digits, IID. A third tell the ten digits apart, a third
odd from even, a third digits below five from the others. They share only the extractor
of the meme and keep all headers. Prints the accuracy of each task, and that of the same
clients without mutual learning (alpha = beta = 1: nothing is learnt from each other).
"""

import argparse

import fedjax_mrl as fm
from fedjax_mrl.models import mlp

TASKS = {
    "digit": list(range(10)),
    "odd": [digit % 2 for digit in range(10)],
    "below five": [int(digit < 5) for digit in range(10)],
}


def small(input_shape, num_classes) -> fm.Model:
    """A perceptron of 64 units twice."""
    return mlp.mlp(input_shape, num_classes, feature_dim=64, hidden=64)


def run(num_rounds: int, *, seed: int = 0, **options: float) -> dict[str, float]:
    """Trains the nine clients; mean personal accuracy of each task's clients."""
    settings = {f"algorithm.{name}": value for name, value in options.items()}
    federation = fm.Federation(
        algorithm="fml",
        models=[small],
        shared_model=small,
        tasks=TASKS,
        num_clients=9,
        partition="iid",
        rounds=num_rounds,
        batch_size=16,
        learning_rate=0.05,
        seed=seed,
        data_seed=seed,
        eval_every=max(num_rounds, 1),
        set={"algorithm.share": "extractor", **settings},
    )
    federation.fit(progress=False)
    accuracy = federation.evaluate().accuracy[0, 0]  # point local, head personal
    return {
        task: float(accuracy[place :: len(TASKS)].mean())
        for place, task in enumerate(TASKS)
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    wanted = parser.parse_args().rounds
    mutual, alone = run(wanted), run(wanted, alpha=1.0, beta=1.0)
    for task in TASKS:
        print(f"{task:12}mutual {mutual[task]:.4f}  alone {alone[task]:.4f}")
