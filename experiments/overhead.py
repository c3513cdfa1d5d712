"""What digest, finite check and checkpoints cost, beside the round they belong to.

    .venv/bin/python -m experiments.overhead --data-dir DIR [--dataset cifar10]

CPU time of the process, in turn, medians; at the end at the default frequencies.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from unittest import mock

import jax
import jax.numpy as jnp

from fedjax_mrl.cli import devices
from fedjax_mrl.config import RunConfig
from fedjax_mrl.federation import Federation
from fedjax_mrl.runs.checkpoint import Checkpoints
from fedjax_mrl.simulation import visit
from fedjax_mrl.simulation.state import State


def cost(work: Callable[..., object], *arguments: object) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work(*arguments)
    return time.process_time() - started


def played_once(federation: Federation, state: State) -> tuple[State, float]:
    """The next state, and the CPU seconds of the round."""
    started = time.process_time()
    state, _ = federation.play(state)
    jax.block_until_ready(state[1:])
    return state, time.process_time() - started


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(words)


def main() -> None:
    """Prints seconds and shares."""
    args = arguments()
    config = RunConfig(dataset=args.dataset, data_dir=args.data_dir, shared_dim=100)
    devices.provide(config)  # as `fedjax-mrl run` is laid out
    checked = Federation(config)
    with mock.patch.object(visit, "_finite", lambda values: {"state": jnp.bool_(True)}):
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
            state, seconds = played_once(checked, state)
            times["round"].append(seconds)
            other, seconds = played_once(unchecked, other)
            times["round without finite check"].append(seconds)
            digester.touch(played.cohort)
            arrays = checked.arrays(state)
            times["evaluation"].append(cost(checked.evaluate, state))
            times["digest"].append(cost(digester, state))
            times["checkpoint"].append(cost(checked.arrays, state))
            kept.save(number, arrays, {"digest": ""}, 0.5)
            times["checkpoint"][-1] += cost(kept.wait)
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
