"""The tables of all methods in docs/findings.md, from results that are kept beside it.

    python -m experiments.findings_table           # writes the page's table again
    python -m experiments.findings_table FOLDER    # takes the results of runs first

FOLDER is the folder of one setting that `fedjax-mrl reproduce` has written, as in
runs/reproduce/methods-n10/full/c100. The results are one row for each client, head and
point of the last round of each finished run, and one for each evaluation of it. Runs
that it lacks keep the results that they have. A test compares the page with what this
module generates.
"""

import argparse
import csv
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_mrl.runs import student

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "findings.md"
RESULTS = ROOT / "experiments" / "results"
START, END = "<!-- methods-n10 -->\n", "<!-- end of methods-n10 -->\n"
SPLITS, END_OF_SPLITS = "<!-- splits -->\n", "<!-- end of splits -->\n"
ALONE = "standalone"
WHOLE = "fedmrl"
SPLIT = "0"  # data seed of the split on which all methods were played
ABLATIONS = ("fedmrl_last_client", "fedmrl_frozen_projector", "fedmrl_no_mrl")

Row = dict[str, str]


class Answer(NamedTuple):
    """A method's answer for one client: from which head, before or after averaging."""

    algorithm: str
    head: str
    point: str


def collect(folder: pathlib.Path) -> tuple[list[Row], list[Row]]:
    """The last round of every client, and every evaluation, of finished runs.

    Args:
        folder: of run directories; one without summary.json is left out.
    """
    clients: list[Row] = []
    rounds: list[Row] = []
    for run in sorted(path.parent for path in folder.glob("*/summary.json")):
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        told = read(run / "clients.csv")
        last = max(int(row["round"]) for row in told)
        clients += [
            named(config) | row
            for row in told
            if int(row["round"]) == last and row["accuracy"]
        ]
        rounds += [named(config) | row for row in read(run / "metrics.csv")]
    return clients, rounds


def joined(kept: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The new rows, and those that were kept of runs without new ones."""
    run = lambda row: tuple(row[key] for key in NAMED[:4])
    replaced = set(map(run, new))
    return sorted([*(row for row in kept if run(row) not in replaced), *new], key=run)


def named(config: Mapping[str, object]) -> Row:
    """The columns that say which run a row is of."""
    return {key: str(config[key]) for key in NAMED[:4]}


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a table in a file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: pathlib.Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Writes these columns of rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


NAMED = ("dataset", "algorithm", "seed", "data_seed", "round", "point", "head")
CLIENTS = (*NAMED, "client", "architecture", "num_test", "accuracy")
ROUNDS = (*NAMED, "mean_accuracy", "worst_accuracy", "mean_loss")


def accuracies(rows: Iterable[Row], answer: Answer) -> np.ndarray:
    """Per cent of right answers by client and seeds, in one order for all methods."""
    found = {
        (row["seed"], row["data_seed"], int(row["client"])): float(row["accuracy"])
        for row in rows
        if Answer(row["algorithm"], row["head"], row["point"]) == answer
    }
    return 100 * np.array([found[key] for key in sorted(found)])


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """The mean of paired differences and its 95% interval over clients."""
    gaps = one - other
    low, high = student.interval(gaps) or (np.nan, np.nan)
    return f"{gaps.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


def line(rows: Sequence[Row], algorithm: str) -> str:
    """A row of the page: the method's first head, before and after averaging."""
    head = _first_head(rows, algorithm)
    before = accuracies(rows, Answer(algorithm, head, "local"))
    after = accuracies(rows, Answer(algorithm, head, "global"))
    cells = [f"`{algorithm}`", head, f"{before.mean():.2f}", f"{after.mean():.2f}"]
    if algorithm == ALONE:
        cells += ["", ""]
    else:
        alone = accuracies(rows, Answer(ALONE, "local", "local"))
        ahead = int((before > alone).sum())
        cells += [difference(before, alone), f"{ahead} of {len(alone)}"]
    return "| " + " | ".join(cells) + " |"


def generate(rows: Sequence[Row]) -> str:
    """The table, best first."""
    methods = {row["algorithm"] for row in rows}
    best = sorted(methods, key=lambda name: -_mean(rows, name))
    return "\n".join(
        [
            "| method | head | before averaging | after averaging | before, minus "
            "Standalone | clients ahead |",
            "| --- | --- | --- | --- | --- | --- |",
            *(line(rows, name) for name in best),
            "",
            "| FedMRL minus | before averaging | after averaging |",
            "| --- | --- | --- |",
            *(_without(rows, name) for name in ABLATIONS if name in methods),
            "",
        ]
    )


def by_split(rows: Sequence[Row]) -> str:
    """FedMRL beside training alone, and its ablation, on each split that was played."""
    lines = [
        "| split | Standalone | FedMRL | minus Standalone | clients ahead | minus "
        "`fedmrl_last_client` |",
        "|" + " --- |" * 6,
    ]
    for split in sorted({row["data_seed"] for row in rows}):
        these = [row for row in rows if row["data_seed"] == split]
        methods = {row["algorithm"] for row in these}
        if not {ALONE, WHOLE} <= methods:
            continue
        alone = accuracies(these, Answer(ALONE, "local", "local"))
        mine = accuracies(these, Answer(WHOLE, "mix_large", "local"))
        cells = [split, f"{alone.mean():.2f}", f"{mine.mean():.2f}"]
        cells += [difference(mine, alone)]
        cells += [f"{int((mine > alone).sum())} of {len(alone)}"]
        last = accuracies(these, Answer(ABLATIONS[0], "mix_large", "local"))
        cells += [difference(mine, last) if last.size else "not run"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _first_head(rows: Sequence[Row], algorithm: str) -> str:
    return next(row["head"] for row in rows if row["algorithm"] == algorithm)


def _mean(rows: Sequence[Row], algorithm: str) -> float:
    answer = Answer(algorithm, _first_head(rows, algorithm), "local")
    return float(accuracies(rows, answer).mean())


def _without(rows: Sequence[Row], ablation: str) -> str:
    """A row of the page: how much more accurate FedMRL is than one of its ablations."""
    cells = [f"`{ablation}`"]
    for point in ("local", "global"):
        whole = accuracies(rows, Answer(WHOLE, "mix_large", point))
        part = accuracies(rows, Answer(ablation, "mix_large", point))
        cells.append(difference(whole, part))
    return "| " + " | ".join(cells) + " |"


def page(text: str) -> str:
    """The page with the table brought up to date."""
    rows = read(RESULTS / "methods-n10.csv")
    first = [row for row in rows if row["data_seed"] == SPLIT]
    text = between(text, START, generate(first), END)
    return between(text, SPLITS, by_split(rows), END_OF_SPLITS)


def between(text: str, start: str, new: str, end: str) -> str:
    """The text with other words between two marks."""
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return before + start + new + end + after


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    return parser.parse_args(words)


def main() -> None:
    """Takes the results of a folder, if one is given, and writes the page's tables."""
    folder = arguments().folder
    if folder:
        clients, rounds = collect(folder)
        for name, new, columns in (
            ("methods-n10.csv", clients, CLIENTS),
            ("methods-n10-rounds.csv", rounds, ROUNDS),
        ):
            write(RESULTS / name, joined(read(RESULTS / name), new), columns)
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {TARGET.name}")


if __name__ == "__main__":
    main()
