"""The server's loop over a network: broadcast, gather, update, save; round by round."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fedjax_mrl import numerics
from fedjax_mrl.federation import Federation
from fedjax_mrl.flower import progress as saved
from fedjax_mrl.flower.asking import Asking, Gathered
from fedjax_mrl.flower.error import Ended
from fedjax_mrl.flower.progress import Folder, Progress
from fedjax_mrl.flower.settings import Patience
from fedjax_mrl.flower.transport import Transport
from fedjax_mrl.flower.versions import Version
from fedjax_mrl.results import Seconds
from fedjax_mrl.runs import tables
from fedjax_mrl.simulation import digest, shapes


class Loop:
    """Plays the rounds of a federation with clients on nodes.

    Args:
        federation: of the same options as every node's.
        folder: of the server; a federation that is there goes on.
        transport: to the nodes.
        patience: how long it waits.
        tell: is told in sentences what happens.
    """

    def __init__(
        self,
        federation: Federation,
        folder: Folder,
        transport: Transport,
        patience: Patience,
        tell: Callable[[str], object],
    ) -> None:
        self._federation, self._folder, self._tell = federation, folder, tell
        self._engine = federation.server()
        self._asking = Asking(federation, folder.run, transport, patience, tell)
        client = federation.algorithm.client(federation.groups[0].model)
        self._finishes = client.finish is not None

    def begin(self) -> Progress:
        """Where the federation is: before the first round, or where it was stopped.

        Raises:
            FlowerError: if what was saved cannot be read.
        """
        with numerics.fixed(self._federation.config.precision):
            like = shapes.of_server(self._federation.algorithm)[1]
        found, damaged = self._folder.newest(like)
        for text in damaged:
            self._tell(text)
        if found is None:
            found = Progress(0, self._engine.init(), {}, {}, {})
            self._folder.save(found)
        else:
            self._tell(f"Going on after round {found.round}.")
        self._folder.cut(found.round)
        return found

    def run(self) -> Progress:
        """Plays all rounds that are left.

        Raises:
            Ended: if too few clients report, or the server's state is not finite.
        """
        now = self.begin()
        if now.unfinished:
            now = self._finish(now)
        while now.round < self._federation.config.rounds:
            now = self.play(now)
        self._tell(f"Done: {now.round} rounds.")
        return now

    def play(self, before: Progress) -> Progress:
        """Plays one round and saves what came of it.

        Raises:
            Ended: as `run`.
        """
        started = time.monotonic()
        round = before.round + 1
        gathered = self._asking.gather(before, round, self._engine.sample(round))
        reports = gathered.reports
        server = self._engine.update(before.server, reports, round)
        _require_finite(server, round)
        accepted = {**before.accepted, **dict.fromkeys(reports, Version(round))}
        waiting = {client: bool(report.sound) for client, report in reports.items()}
        now = Progress(
            round, server, accepted, before.accepted, waiting if self._finishes else {}
        )
        total = time.monotonic() - started
        seconds = Seconds(total, gathered.seconds, total - gathered.seconds)
        self._record(before, now, gathered, seconds)
        self._folder.save(now)  # tables first: they are cut back to what was saved
        return self._finish(now) if now.unfinished else now

    def _finish(self, now: Progress) -> Progress:
        """Lets the participants of the newest round do what the method asks."""
        now = self._asking.finish(now)
        self._folder.save(now)
        self._folder.append(saved.WIRE, self._asking.traffic())
        return now

    def _record(
        self, before: Progress, now: Progress, gathered: Gathered, seconds: Seconds
    ) -> None:
        """Adds the round to the tables, and tells of it."""
        hashed = digest.leaves(digest.SERVER, now.server)
        size = self._federation.config.cohort_size
        bytes_down = self._engine.broadcast_bytes(before.server) * size
        row = _row(gathered, size, bytes_down, seconds)
        leaves = [{"round": now.round, **leaf._asdict()} for leaf in hashed]
        self._folder.append(saved.ROUNDS, [row | {"round": now.round}])
        self._folder.append(saved.DIGESTS, leaves)
        self._folder.append(saved.WIRE, self._asking.traffic())
        rejected = f", {row['rejected']} rejected" if row["rejected"] else ""
        self._tell(
            f"Round {now.round}: {len(gathered.reports)} of {size} clients{rejected}, "
            f"{seconds.total:.2f} s, server {digest.combine(hashed)[:16]}"
        )


def _row(
    gathered: Gathered, size: int, bytes_down: int, seconds: Seconds
) -> dict[str, Any]:
    """The row of rounds.csv, without what no single machine knows.

    That are FLOPs, stragglers, tests, and the digest of all states.
    """
    reports = list(gathered.reports.values())
    losses = [float(report.metrics["total"]) for report in reports if report.sound]
    known = {
        "seconds": round(seconds.total, 4),
        "participants": size,
        "train_loss": float(np.mean(losses)) if losses else float("nan"),
        "bytes_down": bytes_down,
        "bytes_up": int(sum(float(report.bytes_up) for report in reports)),
        "dropped": size - len(reports),
        "rejected": len(reports) - len(losses),
        "seconds_local": round(seconds.local, 4),
        "seconds_server": round(seconds.server, 4),
    }
    return dict.fromkeys(tables.COLUMNS[saved.ROUNDS]) | known


def _require_finite(server: Any, round: int) -> None:
    """Refuses a state of the server that is not finite.

    Raises:
        Ended: then.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(server):
        real = jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        if real and not np.isfinite(np.asarray(leaf, np.float64)).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise Ended(
                f"Training diverged in round {round}: {name} of the server is no "
                f"longer finite. The state after round {round - 1} is saved."
            )
