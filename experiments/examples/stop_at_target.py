"""Stops as soon as the mean accuracy of all clients reaches a target.

    python -m experiments.examples.stop_at_target [--target 0.95] [--out DIR]

Ten clients learn digits with FedMRL. The loop is one's own: it ends at the target, the
curve goes to DIR/curve.png, client 3 says what it sees in one image, and the run is
saved in DIR/run and loaded again, where it answers the same.
"""

import argparse
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

import fedjax_mrl as fm


def until(federation: fm.Federation, target: float) -> float:
    """Plays rounds until the mean accuracy reaches the target or no round is left."""
    accuracy = 0.0
    for result in federation.rounds():
        accuracy = result.accuracy  # None in rounds that eval_every leaves out
        print(f"round {result.state.round:2}  {accuracy:.4f}")
        if accuracy >= target:
            break
    return accuracy


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, default=20, help="at most so many")
    parser.add_argument("--out", type=pathlib.Path, default="runs/stop_at_target")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Trains, draws, asks, saves and loads."""
    args = arguments(words)
    federation = fm.Federation(
        algorithm="fedmrl",
        models=("mlp",),
        shared_model="mlp",
        feature_dim=64,
        shared_dim=16,
        num_clients=10,
        partition="class:4",
        limit_train=600,
        rounds=args.rounds,
        epochs=3,
        batch_size=16,
    )
    accuracy = until(federation, args.target)
    reached = "reached" if accuracy >= args.target else "not reached"
    print(f"{args.target} {reached} after {federation.state.round} rounds")

    args.out.mkdir(parents=True, exist_ok=True)
    federation.history.plot().savefig(args.out / "curve.png")

    place = federation.partition.test[3][0]  # of its first test image in the data set
    image, digit = federation.dataset.x_test[place], federation.dataset.y_test[place]
    logits = federation.predict(image, client=3)
    chance = jax.nn.softmax(logits).max()
    print(f"client 3 sees a {logits.argmax()} in a {digit}, to {chance:.0%}")

    federation.save(args.out / "run", overwrite=True)
    loaded = fm.load(args.out / "run")
    same = np.array_equal(loaded.predict(image, client=3), logits)
    print(f"loaded after round {loaded.state.round}; same answer: {same}")


if __name__ == "__main__":
    main()
