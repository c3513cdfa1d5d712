"""Asks the clients of a round and judges what they answer."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl import numerics, packing, results
from fedjax_mrl.engines import ServerEngine
from fedjax_mrl.federation import Federation
from fedjax_mrl.flower import identity, messages, shapes, wire
from fedjax_mrl.flower.error import Ended, Refused
from fedjax_mrl.flower.kinds import FINISH, TRAIN
from fedjax_mrl.flower.messages import Order
from fedjax_mrl.flower.progress import WIRE_COLUMNS, Progress
from fedjax_mrl.flower.roster import Roster
from fedjax_mrl.flower.settings import Patience
from fedjax_mrl.flower.transport import Transport
from fedjax_mrl.flower.versions import Version
from fedjax_mrl.simulation import visit
from fedjax_mrl.simulation.visit import Report

_LOOK = 0.5  # seconds between looks at who is connected


class Gathered(NamedTuple):
    """What came of the participants of a round."""

    reports: dict[int, Report]
    missing: dict[int, str]  # why the others' do not count
    seconds: float


class Asking:
    """Asks clients for their parts of rounds.

    Args:
        federation: of the same options as every node's.
        run: names the federation to the nodes.
        transport: to the nodes.
        patience: how long it waits.
        tell: is told in sentences who drops out, and why.
    """

    def __init__(
        self,
        federation: Federation,
        run: str,
        transport: Transport,
        patience: Patience,
        tell: Callable[[str], object],
    ) -> None:
        self._federation, self._run = federation, run
        self._transport, self._patience, self._tell = transport, patience, tell
        self._engine: ServerEngine = federation.server()
        self._like = shapes.report(federation)
        options = identity.options(federation.config)
        names = results.architectures(federation.groups)
        self._roster = Roster(transport, options, names, tell)
        self._waited = False  # whether everybody was waited for once
        self._wire: list[dict[str, Any]] = []

    def traffic(self) -> list[dict[str, Any]]:
        """The messages since the last call, as rows of wire.csv."""
        rows, self._wire = self._wire, []
        return rows

    def gather(self, before: Progress, round: int, cohort: list[int]) -> Gathered:
        """The reports of a round's participants.

        Raises:
            Ended: if there are too few, each time.
        """
        started = time.monotonic()
        least = min(max(self._patience.least, 1), len(cohort))
        reports: dict[int, Report] = {}
        missing: dict[int, str] = {}
        for attempt in range(1, self._patience.attempts + 1):
            rest = [client for client in cohort if client not in reports]
            found, missing = self._ask(before, round, rest, least - len(reports))
            reports |= found
            for client, reason in sorted(missing.items()):
                self._tell(f"Round {round}: client {client} drops out: {reason}")
            if len(reports) >= least:
                return Gathered(reports, missing, time.monotonic() - started)
            self._tell(
                f"Round {round}: {len(reports)} of at least {least} clients reported, "
                f"attempt {attempt} of {self._patience.attempts}."
            )
        named = [f"client {c}: {reason}" for c, reason in sorted(missing.items())]
        raise Ended(
            f"Round {round} needs the reports of {least} clients and has "
            f"{len(reports)} after {self._patience.attempts} attempts: "
            f"{'; '.join(named)}. The state after round {before.round} is saved; start "
            "again to go on."
        )

    def _ask(
        self, before: Progress, round: int, clients: list[int], least: int
    ) -> tuple[dict[int, Report], dict[int, str]]:
        """Asks clients once: their reports, and why the others' do not count."""
        present = self._await(clients, least)
        broadcast = packing.pack(self._engine.broadcast(before.server))
        requests = {}
        for client in present:
            base, keep = before.base(client), before.keep(client)
            given = Order(TRAIN, self._run, round, base, keep)
            requests[client] = messages.order(given, broadcast)
        answers, missing = self._exchange(TRAIN, round, requests, present)
        missing |= {c: "it is not connected." for c in clients if c not in present}
        reports = {}
        for client, data in answers.items():
            try:
                reports[client] = self._report(client, round, data)
            except Refused as error:
                missing[client] = f"refused, {error}"
        return reports, missing

    def _await(self, cohort: list[int], least: int) -> dict[int, int]:
        """The nodes of a round's clients, once enough of them are connected.

        The first time all are waited for.
        """
        wanted = least if self._waited else len(cohort)
        end = time.monotonic() + self._patience.timeout
        while True:
            found = self._roster.present(self._patience.timeout)
            here = {client: found[client] for client in cohort if client in found}
            if len(here) >= wanted or time.monotonic() > end:
                self._waited = True
                return here
            time.sleep(_LOOK)

    def _exchange(
        self,
        kind: str,
        round: int,
        requests: Mapping[int, bytes],
        present: Mapping[int, int],
    ) -> tuple[dict[int, bytes], dict[int, str]]:
        """Sends each client its message: answers, and why there is none."""
        clients = {present[client]: client for client in requests}
        by_node = {present[client]: data for client, data in requests.items()}
        timeout = self._patience.timeout
        answers = self._transport.exchange(kind, round, by_node, timeout)
        came: dict[int, bytes] = {}
        missing: dict[int, str] = {}
        for node, client in clients.items():
            self._count(round, client, kind, "down", by_node[node])
            if node not in answers:
                missing[client] = f"no answer within {timeout:g} s."
            elif answers[node].error:
                missing[client] = answers[node].error
            else:
                came[client] = answers[node].data
                self._count(round, client, kind, "up", came[client])
        return came, missing

    def _report(self, client: int, round: int, data: bytes) -> Report:
        """A client's report, whose numbers are as the configuration wants them.

        Raises:
            Refused: if they are not.
        """
        report = messages.read_report(data, client, round, self._like)
        config = self._federation.round_config
        largest = config.max_upload_norm if config.reject_nonfinite else 0.0
        with numerics.fixed(self._federation.config.precision):
            fine = bool(visit.sound(report.upload, largest)) and bool(report.sound)
        if not fine and not config.reject_nonfinite:
            bad = [name for name, flag in report.finite.items() if not flag]
            raise Refused(
                f"its {' and '.join(bad) or 'upload'} is not finite. Lower the "
                "learning rate, or the clip norm."
            )
        sound: Any = np.bool_(fine)
        return report._replace(sound=sound)

    def finish(self, now: Progress) -> Progress:
        """Tells the participants of the newest round of the server's new state.

        Returns:
            The same with the versions of those that did what the method asks.
        """
        present = self._roster.present(self._patience.timeout)
        broadcast = packing.pack(self._engine.broadcast(now.server))
        requests = {}
        for client, sound in now.unfinished.items():
            if client in present:
                base, keep = Version(now.round), now.keep(client)
                given = Order(FINISH, self._run, now.round, base, keep, sound)
                requests[client] = messages.order(given, broadcast)
        answers, missing = self._exchange(FINISH, now.round, requests, present)
        done = dict(now.accepted)
        for client in now.unfinished:
            try:
                if client not in answers:
                    raise Refused(missing.get(client, "it is not connected."))
                messages.read_finished(answers[client], client, now.round)
                done[client] = Version(now.round, True)
            except Refused as error:
                self._tell(
                    f"Round {now.round}: client {client} did not finish: {error}"
                )
        return now._replace(accepted=done, unfinished={})

    def _count(
        self, round: int, client: int, kind: str, direction: str, data: bytes
    ) -> None:
        size = wire.size(data)
        row = (round, client, kind, direction, size.arrays, size.envelope)
        self._wire.append(dict(zip(WIRE_COLUMNS, row, strict=True)))
