"""Describes a divergence: which client's which network is no longer finite."""

import numpy as np

from fedjax_mrl.config import RunConfig
from fedjax_mrl.simulation.state import Played

_LISTED = 10


class Diverged(RuntimeError):
    """A network became non-finite; says which client, round and network."""


def describe(played: Played, round: int, config: RunConfig | None = None) -> str | None:
    """Says which client's which network is no longer finite, or None.

    Participants that the server rejects (`server.reject_nonfinite`) are no
    divergence: their number is `Played.rejected`.

    Args:
        played: what the round reports, fetched.
        round: its number.
        config: of the run; None rejects nobody.
    """
    rejects = config is not None and config.server_options().get("reject_nonfinite")
    bad = [] if rejects else unsound(played)
    if not played.server_finite:
        bad.append(("the server", "state"))
    if not bad:
        return None
    listed = "; ".join(f"{owner}: {name}" for owner, name in bad[:_LISTED])
    more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    return f"Training diverged in round {round}: no longer finite are {listed}{more}."


def unsound(played: Played) -> list[tuple[str, str]]:
    """Clients and their networks; else their losses; else their uploads."""
    named = lambda name, flags: [
        (int(client), name) for client in played.reported[~flags]
    ]
    bad = [
        pair
        for name, flags in played.finite.items()
        if name != "upload"
        for pair in named(name, flags)
    ]
    bad = bad or named("loss", np.isfinite(played.metrics["total"]))
    bad = bad or named("upload", played.finite["upload"])
    return [(f"client {client}", name) for client, name in sorted(bad)]
