"""How accuracies grow with a hundred clients, a table of docs/findings.md.

    python -m experiments.findings_course           # writes the page's table again
    python -m experiments.findings_course FOLDER    # takes the results of runs first

FOLDER is the folder of one setting that `fedjax-mrl reproduce` has written, as in
runs/reproduce/ablations/full/c100. Its runs need not be finished: each is read up to
the last round in which it was tested, FedMRL and Standalone to the last one of both.
Runs that it lacks keep the results that they have. A test compares the page with
what this module generates.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

from experiments import findings_table as tables
from experiments.findings_table import ALONE, RESULTS, TARGET, WHOLE, Answer, Row

START, END = "<!-- n100 -->\n", "<!-- end of n100 -->\n"
EVERY = 30  # rounds between the table's rows
LATEST = 10  # evaluations over which ablations are compared
METHODS = {WHOLE: "FedMRL", "fedmrl_last_client": "last client"}


def collect(folder: pathlib.Path) -> tuple[list[Row], list[Row]]:
    """Every client in the last round of its method, and every evaluation until then."""
    told = {}
    for path in sorted(folder.glob("*/metrics.csv")):
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        told[path.parent] = tables.named(config), tables.read(path)
    ends = {
        named["algorithm"]: max(int(row["round"]) for row in rows)
        for named, rows in told.values()
    }
    both = [ends[name] for name in (ALONE, WHOLE) if name in ends]
    ends |= {name: min(both) for name in (ALONE, WHOLE) if name in ends}
    rounds = [
        named | row
        for named, rows in told.values()
        for row in rows
        if int(row["round"]) <= ends[named["algorithm"]]
    ]
    clients = [
        named | row
        for run, (named, _) in told.items()
        for row in tables.read(run / "clients.csv")
        if int(row["round"]) == ends[named["algorithm"]] and row["accuracy"]
    ]
    return clients, rounds


def generate(clients: Sequence[Row], rounds: Sequence[Row]) -> str:
    """The table by rounds, and the differences in the last of them."""
    methods = [name for name in METHODS if any(r["algorithm"] == name for r in rounds)]
    tested = {
        name: {int(row["round"]) for row in rounds if row["algorithm"] == name}
        for name in (ALONE, *methods)
    }
    last = max(tested[WHOLE])
    whole = {number for number in tested[WHOLE] if number % EVERY == 0}
    shown = sorted(whole | {max(numbers) for numbers in tested.values()})
    titles = ["round", "Standalone"]
    for name in methods:
        titles += [f"{METHODS[name]}, before averaging", "after"]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for number in shown:
        cells = [str(number), _mean(rounds, number, Answer(ALONE, "local", "local"))]
        for name in methods:
            for point in ("local", "global"):
                cells.append(_mean(rounds, number, Answer(name, "mix_large", point)))
        lines.append("| " + " | ".join(cells) + " |")
    alone = tables.accuracies(clients, Answer(ALONE, "local", "local"))
    mine = tables.accuracies(clients, Answer(WHOLE, "mix_large", "local"))
    gap, ahead = tables.difference(mine, alone), int((mine > alone).sum())
    lines += [
        "",
        f"`{WHOLE}` minus Standalone after {last} rounds, before averaging: {gap} "
        f"points; {ahead} of {len(alone)} clients are ahead.",
    ]
    for name in methods[1:]:
        common = sorted(tested[WHOLE] & tested[name])[-LATEST:]
        lines += ["", _ahead(rounds, name, common)]
    return "\n".join(lines) + "\n"


def _ahead(rounds: Sequence[Row], name: str, numbers: Sequence[int]) -> str:
    """By how much FedMRL is ahead of an ablation in some rounds."""
    spans = []
    for point in ("local", "global"):
        one, other = (
            [
                float(_mean(rounds, n, Answer(method, "mix_large", point)))
                for n in numbers
            ]
            for method in (WHOLE, name)
        )
        gaps = [a - b for a, b in zip(one, other, strict=True)]
        spans.append(f"{min(gaps):+.2f} to {max(gaps):+.2f}")
    return (
        f"`{WHOLE}` minus `{name}` in the {len(numbers)} evaluations of rounds "
        f"{numbers[0]} to {numbers[-1]}: {spans[0]} points before averaging, "
        f"{spans[1]} after."
    )


def _mean(rounds: Sequence[Row], number: int, answer: Answer) -> str:
    """The mean over clients of one evaluation, in per cent; empty if there is none."""
    found = [
        row["mean_accuracy"]
        for row in rounds
        if int(row["round"]) == number
        and Answer(row["algorithm"], row["head"], row["point"]) == answer
    ]
    return f"{100 * float(found[0]):.2f}" if found else ""


def page(text: str) -> str:
    """The page with the table brought up to date."""
    kept = (tables.read(RESULTS / f"{name}.csv") for name in ("n100", "n100-rounds"))
    return tables.between(text, START, generate(*kept), END)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    return parser.parse_args(words)


def main() -> None:
    """Takes the results of a folder, if one is given, and writes the page's table."""
    folder = arguments().folder
    if folder:
        columns = {"n100": tables.CLIENTS, "n100-rounds": tables.ROUNDS}
        for (name, found), new in zip(columns.items(), collect(folder), strict=True):
            path = RESULTS / f"{name}.csv"
            tables.write(path, tables.joined(tables.read(path), new), found)
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {TARGET.name}")


if __name__ == "__main__":
    main()
