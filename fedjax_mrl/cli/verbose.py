"""Tells on stderr which group trains, how long it took, and its clients' losses."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation
    from fedjax_mrl.simulation.phases import Visits

# JAX's name for the seconds that its compiler took.
_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def watching(federation: "Federation", *, shown: bool) -> Iterator[None]:
    """Tells of every group that trains meanwhile, and waits for each; if `shown`."""
    if not shown:
        yield
        return
    from jax import monitoring

    teller = _Teller()
    monitoring.register_event_duration_secs_listener(teller.took)
    federation.watch = teller.tell
    try:
        yield
    finally:
        federation.watch = None
        monitoring.unregister_event_duration_listener(teller.took)


class _Teller:
    """Prints a line when a group begins, and others when it is done."""

    def __init__(self) -> None:
        self._started = self._compiling = 0.0

    def took(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Counts what JAX says of compiling."""
        if event == _COMPILED:
            self._compiling += duration_secs

    def tell(self, visits: "Visits") -> None:
        """Prints of a group."""
        plans, number = visits.plans, len(visits.present)
        clients = "1 client" if number == 1 else f"{number} clients"
        head = f"round {plans[0].round}  {visits.group}: {clients}"
        if visits.losses is None:
            self._started, self._compiling = time.perf_counter(), 0.0
            _print(f"{head} ...")
            return
        seconds = time.perf_counter() - self._started
        compiling = f", of it {self._compiling:.2f} s compiling"
        _print(f"{head} took {seconds:.2f} s{compiling * (self._compiling > 0)}")
        pairs = sorted(zip(visits.present, visits.losses.tolist(), strict=True))
        for trial, plan in enumerate(plans):
            losses = [
                f"{client} {loss:.4f}" for (t, client), loss in pairs if t == trial
            ]
            whose = ""
            if len(plans) > 1:
                whose = f"seed {plan.trial.seed}, rate {plan.trial.learning_rate:g}, "
            if losses:
                _print(f"  {whose}loss by client: {', '.join(losses)}")


def _print(text: str) -> None:
    from tqdm import auto

    auto.tqdm.write(text, file=sys.stderr)  # which keeps clear of a bar
    sys.stderr.flush()
