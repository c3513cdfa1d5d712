"""The demonstration behind `make demo`: FedMRL beside training alone.

    python -m experiments.demo

Twenty-five clients with five different CNNs, each with about 46 of scikit-learn's
digits of six classes; five of them take part in a round. Both methods play three seeds
at once on the same split. Leaves the runs, their tables and curves.png in runs/demo.
"""

import csv
import pathlib
import sys

from fedjax_mrl.cli.main import main
from fedjax_mrl.runs import measures

OUT = pathlib.Path("runs/demo")
WORDS = "compare --preset demo --algorithms fedmrl,standalone --seeds 0,1,2 --out"


def run() -> int:
    """Trains both, prints the table, the difference and the name of the picture."""
    status = main([*WORDS.split(), str(OUT)])
    if status:
        return status
    with (OUT / "comparison.csv").open(newline="", encoding="utf-8") as file:
        rows = [line | {"last": float(line["last"])} for line in csv.DictReader(file)]
    ours, alone = (
        [line for line in rows if line["algorithm"] == name]
        for name in ("fedmrl", "standalone")
    )
    means = [measures.spread([line["last"] for line in own]) for own in (ours, alone)]
    print(
        f"Mean test accuracy of 25 clients, {len(ours)} seeds: FedMRL {means[0]} %, "
        f"Standalone {means[1]} %.\nDifference by seed, with its 95% interval: "
        f"{measures.difference(ours, alone)} points. Curves: "
        f"{OUT / 'curves.png'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run())
