"""What digest, finite check and checkpoints cost, beside the round they belong to.

    .venv/bin/python -m experiments.overhead --data-dir DIR [--dataset cifar10]

CPU time of the process, in turn, medians; the default frequencies are applied at the end.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp

from fedjax_mrl import visits
from fedjax_mrl.checkpoint import Checkpoints
from fedjax_mrl.config import RunConfig
from fedjax_mrl.federation import Federation


def cost(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    jax.block_until_ready(work())
    return time.process_time() - started


def main() -> None:
    """Prints seconds and shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    config = RunConfig(dataset=args.dataset, data_dir=args.data_dir, shared_dim=100)
    checked = Federation(config)
    with mock.patch.object(visits, "_finite", lambda held: {"state": jnp.bool_(True)}):
        unchecked = Federation(config)
        other, _ = unchecked.play(unchecked.init())  # compiles
    state, played = checked.play(checked.init())
    digester = checked.digester()
    digester(state)
    times: dict[str, list[float]] = {
        "round": [],
        "round without finite check": [],
        "evaluation": [],
        "digest": [],
        "checkpoint": [],
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Checkpoints(pathlib.Path(folder) / "checkpoints", 2) as kept,
    ):
        for number in range(args.rounds):
            held = [state, other]

            def one(federation, place, held=held):
                held[place], _ = federation.play(held[place])
                return held[place][1:]

            times["round"].append(cost(lambda one=one: one(checked, 0)))
            times["round without finite check"].append(
                cost(lambda one=one: one(unchecked, 1))
            )
            state, other = held
            times["evaluation"].append(cost(lambda: checked.evaluate(state)))
            digester.touch(played.cohort)
            times["digest"].append(cost(lambda: digester(state)[0] and ()))

            def save(number=number):
                kept.save(number, checked.arrays(state), {"digest": ""}, 0.5)
                kept.wait()

            times["checkpoint"].append(cost(save))
    median = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        spread = f"{min(found):.3f} to {max(found):.3f}"
        print(f"{name:28} {median[name]:7.3f} s CPU ({spread})")
    plain = median["round without finite check"] + median["evaluation"]
    added = {
        "finite check": median["round"] - median["round without finite check"],
        "digest": median["digest"] / config.digest_every,
        "checkpoint": median["checkpoint"] / config.checkpoint_every,
    }
    for name, seconds in added.items():
        print(f"{name:28} {100 * seconds / plain:+6.2f} % of a round")
    print(f"{'together':28} {100 * sum(added.values()) / plain:+6.2f} %")


if __name__ == "__main__":
    main()
