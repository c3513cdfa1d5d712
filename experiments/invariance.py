"""Plays every algorithm under several layouts and compares the digests.

    .venv/bin/python -m experiments.invariance [--algorithms a,b] [--rounds 3]

Each cell is a process of its own: devices, stores and interruptions are set from
outside, as a user would. Prints a table for docs/reliability.md.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from fedjax_mrl import algorithms, rundir

FEDERATION = {
    "models": "mlp,cnn5",
    "num_clients": "5",
    "participation": "0.6",
    "partition": "iid",
    "feature_dim": "16",
    "learning_rate": "0.05",
    "eval_every": "2",
}
ONE_ARCHITECTURE = ("fedavg", "fedprox")
LAYOUTS = {
    "again": {},
    "2 devices": {"devices": "2"},
    "4 devices": {"devices": "4"},
    "8 devices": {"devices": "8"},
    "host store": {"client_store": "host"},
    "host store, 2 devices": {"client_store": "host", "devices": "2"},
    "evaluation, checkpoints": {"eval_every": "1", "checkpoint_every": "1"},
}


def command(algorithm: str, verb: str, target: pathlib.Path, **options: str) -> None:
    """Runs one command of the package in a process of its own."""
    words = [sys.executable, "-m", "fedjax_mrl", verb]
    if verb == "resume":
        words.append(str(target))
    else:
        known = FEDERATION | {"algorithm": algorithm}
        if algorithm in ONE_ARCHITECTURE:
            known |= {"models": "mlp", "shared_model": "mlp"}
        if algorithm == "fedmrl":
            known["shared_dim"] = "8"
        options = known | options
        words += ["--out", str(target)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    devices = options.get("devices", "1")
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": devices}
    subprocess.run([*words, "--quiet"], check=True, env=environment)


def digests(target: pathlib.Path) -> list[str]:
    """The digest of every round."""
    rows = rundir.RunDirectory.open(target).rows("rounds.csv")
    return [row["digest"] for row in rows]


def compare(algorithm: str, rounds: int, folder: pathlib.Path) -> dict[str, bool]:
    """Whether the digests of all rounds are equal, by layout."""
    base = folder / algorithm
    command(algorithm, "run", base, rounds=str(rounds), devices="1")
    expected, equal = digests(base), {}
    for number, (name, options) in enumerate(LAYOUTS.items()):
        target = folder / f"{algorithm}-{number}"
        command(algorithm, "run", target, rounds=str(rounds), **options)
        equal[name] = digests(target) == expected
    for stop in range(1, rounds):
        target = folder / f"{algorithm}-stopped-{stop}"
        # Schedules over rounds are those of the whole run.
        command(algorithm, "run", target, rounds=str(stop), schedule_rounds=str(rounds))
        command(algorithm, "resume", target, rounds=str(rounds))
        equal[f"stopped after round {stop}"] = digests(target) == expected
    return equal


def main() -> None:
    """Prints the table; exits with 1 if any digest differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithms", default=",".join(algorithms.names()))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found = {}
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        for name in args.algorithms.split(","):
            found[name] = compare(name, args.rounds, folder)
            differing = [layout for layout, same in found[name].items() if not same]
            print(f"{name}: {differing or 'all equal'}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)
    names = list(found)
    print("| | " + " | ".join(names) + " |")
    print("| --- |" + " --- |" * len(names))
    for layout in found[names[0]]:
        cells = ["equal" if found[name][layout] else "DIFFERENT" for name in names]
        print(f"| {layout} | " + " | ".join(cells) + " |")
    sys.exit(not all(all(of.values()) for of in found.values()))


if __name__ == "__main__":
    main()
