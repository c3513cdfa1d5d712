"""A run as a report reads it: its configuration and the numbers of its tables."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl import partitions, references
from fedjax_mrl.config import RunConfig
from fedjax_mrl.reporting import damage
from fedjax_mrl.reporting.error import ReportError
from fedjax_mrl.runs import checksums, private_runs, summary
from fedjax_mrl.runs.directory import RunDirectory

_NO_CLIENTS = np.zeros(0, int), np.zeros(0, int), np.zeros((0, 0))


class Run(NamedTuple):
    """One run, at point `local` in its headline's head.

    Attributes:
        path: its folder, as it was given.
        config: its configuration.
        data: what tells its data from others: their checksum, or else their name.
        heads: the inference modes; the first is the headline's.
        curve: mean accuracy of the clients by evaluated round, ascending.
        traffic: by round, [T, 3]: the bytes and the FLOPs of all participants up to
            and with that round, after the round's number.
        rounds: the evaluated rounds of `accuracy`, [E].
        clients: ids, ascending [N].
        accuracy: of every client in every evaluated round [E, N]; NaN where a client
            was not tested.
        architectures: of the clients [N].
        lowest: worst client and tenth percentile by evaluated round, as metrics.csv
            has them; a table of version 0.1 has none.
        number_of_clients: how many there are, those without test examples too.
        damage: sentences on tables that are damaged or end before the run.
        privacy: what summary.json says of it; None without, or of an unfinished run.
    """

    path: pathlib.Path
    config: RunConfig
    data: str
    heads: tuple[str, ...]
    curve: dict[int, float]
    traffic: np.ndarray
    rounds: np.ndarray
    clients: np.ndarray
    accuracy: np.ndarray
    architectures: tuple[str, ...]
    lowest: dict[int, tuple[float, float]]
    number_of_clients: int
    damage: tuple[str, ...] = ()
    privacy: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The short name of the method."""
        return references.short(self.config.algorithm)

    @property
    def repetition(self) -> tuple[int, int]:
        """Seed of the data split and seed of the training."""
        return self.config.data_seed, self.config.seed

    @property
    def last_round(self) -> int:
        """The last evaluated round."""
        return max(self.curve)

    def at(self, round: int) -> dict[int, float]:
        """Accuracy by client in an evaluated round; {} where there is none."""
        place = np.flatnonzero(self.rounds == round)
        if not place.size:
            return {}
        row = self.accuracy[place[-1]]
        return {
            int(client): float(value)
            for client, value in zip(self.clients, row, strict=True)
            if not np.isnan(value)
        }

    def cut(self, last: int) -> "Run":
        """The run as it was after some round."""
        kept = self.rounds <= last
        return self._replace(
            curve={t: a for t, a in self.curve.items() if t <= last},
            traffic=self.traffic[self.traffic[:, 0] <= last],
            rounds=self.rounds[kept],
            accuracy=self.accuracy[kept],
        )


def read(path: pathlib.Path) -> Run:
    """Reads a run, which may still be going on.

    Raises:
        ReportError: if its configuration or metrics.csv cannot be read, or it has no
            evaluated round.
    """
    directory = RunDirectory(path)
    try:
        config = RunConfig.from_json(directory.read_text("config.json"))
    except (OSError, ValueError) as error:
        raise ReportError(f"its config.json cannot be read ({error})") from None
    metrics, bad = damage.rows(directory, "metrics.csv")
    played, of_rounds = _or_nothing(directory, "rounds.csv")
    tested, of_clients = _or_nothing(directory, "clients.csv")
    number = _number(path)
    tested, strange = damage.without_strangers(tested, number)
    found = bad, of_rounds, of_clients, strange
    said = [each for each in found if each is not None]
    ends = damage.early_ends(directory, config, metrics, played)
    if not metrics:
        raise ReportError(
            "; ".join([*said, *ends]) or "no round of it was evaluated yet"
        )
    heads = tuple(dict.fromkeys(row["head"] for row in metrics))
    # After a crash a table may hold a round twice: the later line counts.
    curve = dict(sorted(summary.headline_curve(metrics, heads[0])))
    rounds, clients, accuracy, architectures = _clients(tested, heads[0])
    if (path / "clients.csv").exists():
        fewer = damage.missing_clients(metrics, tested, heads[0])
        ends += [fewer] if fewer else []
    return Run(
        path,
        config,
        str(checksums.recorded(directory).get("data_sha256") or config.dataset),
        heads,
        curve,
        _traffic(played),
        rounds,
        clients,
        accuracy,
        architectures,
        _lowest(metrics, heads[0]),
        number or max([config.num_clients, *(clients + 1).tolist()]),
        (*said, *ends),
        private_runs.read(path),
    )


def _number(path: pathlib.Path) -> int | None:
    """How many clients a run has; None without its partition."""
    try:
        return len(partitions.load(path / "partition.npz").train)
    except (OSError, ValueError):
        return None


def _or_nothing(directory: RunDirectory, name: str) -> tuple[damage.Rows, str | None]:
    """As `damage.rows`, of a table without which a report can be made too."""
    try:
        return damage.rows(directory, name)
    except ReportError as error:
        return [], str(error)


def _lowest(
    rows: Iterable[Mapping[str, str]], head: str
) -> dict[int, tuple[float, float]]:
    """Worst client and tenth percentile by evaluated round, where they are told."""
    return {
        int(row["round"]): (float(row["worst_accuracy"]), float(row["p10_accuracy"]))
        for row in rows
        if (row["point"], row["head"]) == ("local", head)
        and row["worst_accuracy"]
        and row["p10_accuracy"]
    }


def _traffic(rows: Iterable[Mapping[str, str]]) -> np.ndarray:
    """Rounds, and bytes and FLOPs up to each, [T, 3]."""
    of = {
        int(row["round"]): (
            float(row["bytes_down"]) + float(row["bytes_up"]),
            float(row["flops"]),
        )
        for row in rows
    }
    numbers = sorted(of)
    each = np.array([of[number] for number in numbers]).reshape(-1, 2)
    return np.column_stack([np.array(numbers, float), each.cumsum(axis=0)])


def _clients(
    rows: Iterable[Mapping[str, str]], head: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Evaluated rounds [E], clients [N], accuracies [E, N] and architectures [N]."""
    found: dict[int, dict[int, float]] = {}
    architecture: dict[int, str] = {}
    for row in rows:
        if (row["point"], row["head"]) == ("local", head):
            client = int(row["client"])
            found.setdefault(int(row["round"]), {})[client] = float(row["accuracy"])
            architecture[client] = row["architecture"]
    if not found:
        return *_NO_CLIENTS, ()
    rounds, clients = sorted(found), sorted(architecture)
    accuracy = [[found[t].get(k, np.nan) for k in clients] for t in rounds]
    names = tuple(architecture[client] for client in clients)
    return np.array(rounds), np.array(clients), np.array(accuracy), names
