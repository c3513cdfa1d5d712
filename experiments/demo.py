"""The demonstration behind `make demo`: FedMRL, and Standalone beside it.

    python -m experiments.demo

Ten clients with five different CNNs, two classes each, on scikit-learn's digits.
Leaves runs/demo (FedMRL) and runs/demo-standalone.
"""

import json
import pathlib
import sys

from fedjax_mrl.cli.main import main

RUNS = pathlib.Path("runs")


def run() -> int:
    """Trains both, prints their tables and the comparison."""
    for algorithm, name in (("fedmrl", "demo"), ("standalone", "demo-standalone")):
        out = str(RUNS / name)
        words = ["run", "--preset", "demo", "--algorithm", algorithm, "--out", out]
        status = main([*words, "--overwrite"])
        if status:
            return status
    fedmrl, alone = (_last(RUNS / name) for name in ("demo", "demo-standalone"))
    verdict = "above" if fedmrl > alone else "not above"
    print(
        f"FedMRL (mix_large) {fedmrl:.4f}, Standalone {alone:.4f}: FedMRL is {verdict} "
        "Standalone."
    )
    return 0


def _last(directory: pathlib.Path) -> float:
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return summary["headline"]["last"]


if __name__ == "__main__":
    sys.exit(run())
