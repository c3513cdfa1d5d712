"""Kills a run again and again, resumes it, and compares with one that was not killed.

    .venv/bin/python -m experiments.faults [--kills 100] [--seed 0]

Every kill is SIGKILL at a random moment: while starting, between rounds, in the middle
of a save. A run is killed one to five times, then left to finish; its final digest and
its tables must equal those of the run that nobody killed.
"""

import argparse
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from fedjax_mrl.runs.directory import RunDirectory

ROUNDS = 12
RUN = {
    "algorithm": "lg_fedavg",
    "models": "cnn5",
    "num-clients": "5",
    "participation": "0.6",
    "partition": "iid",
    "feature-dim": "16",
    "learning-rate": "0.05",
    "rounds": str(ROUNDS),
    "checkpoint-every": "1",
}


def start(folder: pathlib.Path) -> subprocess.Popen:
    """Begins the run, or goes on with it where there is one."""
    words = [sys.executable, "-m", "fedjax_mrl"]
    if (folder / "config.json").exists():
        words += ["resume", str(folder), "--quiet"]
    else:
        words += ["run", "--out", str(folder), "--quiet", "--overwrite"]
        words += [word for name, value in RUN.items() for word in (f"--{name}", value)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def result(folder: pathlib.Path) -> tuple:
    """What must be equal: all tables but for the clock."""
    run = RunDirectory.open(folder)
    rows = [{**row, "seconds": ""} for row in run.rows("rounds.csv")]
    return rows, *(run.read_text(n) for n in ("metrics.csv", "clients.csv"))


def rounds_played(folder: pathlib.Path) -> int:
    """Rounds in the table."""
    try:
        return len(RunDirectory(folder).rows("rounds.csv"))
    except OSError:
        return 0


def rounds_saved(folder: pathlib.Path) -> int:
    """The newest complete checkpoint's round."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def kill(folder: pathlib.Path, draw: random.Random) -> tuple[bool, int] | None:
    """Kills the run once: whether in the middle of a save, and the rounds lost.

    None if it was done before.
    """
    process = start(folder)
    if draw.random() < 0.8:  # else while it starts, too
        before = rounds_played(folder)
        while process.poll() is None and rounds_played(folder) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 4))
    else:
        time.sleep(draw.uniform(0, 10))
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        assert process.returncode == 0, process.stderr.read()
        return None
    unfinished = [
        path for path in (folder / "checkpoints").glob("*") if not path.name.isdigit()
    ]
    return bool(unfinished), max(0, rounds_played(folder) - rounds_saved(folder))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def main() -> None:
    """Prints kills, resumes, lost rounds, mismatches; exits with 1 on a mismatch."""
    args = arguments()
    draw = random.Random(args.seed)
    kills = saves = lost = mismatches = runs = 0
    root = pathlib.Path(tempfile.mkdtemp())
    try:
        process = start(root / "plain")
        assert process.wait() == 0, process.stderr.read()
        expected = result(root / "plain")
        assert len(expected[0]) == ROUNDS
        while kills < args.kills:
            folder = root / f"run{runs}"
            for _ in range(min(draw.randint(1, 5), args.kills - kills)):
                found = kill(folder, draw)
                if found is None:
                    break
                kills, saves, lost = kills + 1, saves + found[0], lost + found[1]
            process = start(folder)
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            runs += 1
            mismatches += result(folder) != expected
            shutil.rmtree(folder)
            print(
                f"runs {runs}, kills {kills} ({saves} in the middle of a save), "
                f"rounds lost {lost}, mismatches {mismatches}",
                flush=True,
            )
    finally:
        shutil.rmtree(root)
    print(f"{kills} kills, each followed by a resume; {runs} runs finished")
    print(f"{lost} rounds played again, {mismatches} mismatches")
    sys.exit(mismatches > 0)


if __name__ == "__main__":
    main()
