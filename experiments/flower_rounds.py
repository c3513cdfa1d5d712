"""Seconds of a round over Flower on this machine, and of its parts.

    python -m experiments.flower_rounds --clients 5 --rounds 6

Five nodes with five CNNs, SuperLink with TLS and node authentication, all on loopback.
For every round: from the broadcast until it is saved; the longest answer of a worker
(training, files); the server's update; and the rest, which is Flower's own part.
"""

import argparse
import csv
import os
import pathlib
import re
import statistics
import tempfile
from collections.abc import Sequence

from fedjax_mrl import config as configs
from fedjax_mrl.flower import app_folder, loopback


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--algorithm", default="fedmrl")
    return parser.parse_args(words)


def play(folder: pathlib.Path, given: argparse.Namespace) -> list[dict[str, float]]:
    """Plays a federation; returns seconds by round."""
    config = configs.build(
        {
            "algorithm": given.algorithm,
            "num_clients": given.clients,
            "rounds": given.rounds,
        }
    )
    app = app_folder.create(folder / "app", config)
    clients = range(given.clients)
    with loopback.Loopback(app, given.clients, folder / "there") as there:
        workers = {client: there.start_worker(client) for client in clients}
        there.start_link()
        for client in clients:
            there.register(client)
        for client in clients:
            there.await_worker(client, workers[client])
            there.start_node(client)
        run = there.start_run()
        if run.handle.wait(900):
            raise SystemExit(run.text())
        logs = {client: workers[client].text() for client in clients}
    return _rows(folder / "there" / "app-server", logs)


def _rows(server: pathlib.Path, logs: dict[int, str]) -> list[dict[str, float]]:
    rows = []
    with (server / "rounds.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pattern = rf"train {row['round']}, ([\d.]+) s"
            found = [re.search(pattern, text) for text in logs.values()]
            worker = max(float(one[1]) for one in found if one)
            total, update = float(row["seconds"]), float(row["seconds_server"])
            rows.append(
                {
                    "round": int(row["round"]),
                    "seconds": total,
                    "worker": worker,
                    "server": update,
                    "flower": total - worker - update,
                }
            )
    return rows


def main() -> None:
    """Prints a row for each round, and the median after the first."""
    given = arguments()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = play(pathlib.Path(folder), given)
    names = list(rows[0])
    print(f"{given.clients} nodes, {os.cpu_count()} cores, load {load:.1f} at first")
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for row in rows:
        print("| " + " | ".join(f"{row[name]:.2f}" for name in names) + " |")
    later = rows[1:] or rows
    medians = {name: statistics.median(row[name] for row in later) for name in names}
    print(
        "median after the first: "
        + ", ".join(f"{name} {medians[name]:.2f} s" for name in names[1:])
    )


if __name__ == "__main__":
    main()
