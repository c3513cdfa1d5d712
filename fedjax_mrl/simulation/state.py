"""The state that goes from round to round, and what a round reports."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedjax_mrl.protocol import Array, Tree
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.stores import Store


class State(NamedTuple):
    """All that a checkpoint holds. No keys: they follow from seed and round."""

    round: int  # rounds played
    server: Tree
    # By group: private states, and the shared part as each client last held it; both
    # as the store keeps them, one row a client.
    clients: dict[str, tuple[Tree, Tree]]


class ConsumedError(RuntimeError):
    """A state that a round has consumed; the message says which one to use."""


class Played(NamedTuple):
    """A round's report. Until `fetch`, arrays may still be on their way.

    They are in the order of `reported`, and up to then [K], padded.
    """

    cohort: np.ndarray  # [K] client ids that were sampled, ascending
    reported: np.ndarray  # [R <= K] those that did not drop out, ascending
    stragglers: int  # of them, how many completed only a part
    metrics: Mapping[str, Array]  # [R] each, mean over the local steps
    finite: Mapping[str, Array]  # network -> [R] bool
    sound: Array  # [R] bool, all of them finite
    server_finite: Array  # [] bool
    bytes_up: Array  # [R]
    bytes_down: Array  # [] for each of the cohort

    def fetch(self) -> "Played":
        """The same on the host, without padding; waits for the devices."""
        size = self.reported.size
        arrays = self.metrics, self.finite, self.sound, self.bytes_up
        metrics, finite, sound, bytes_up = jax.tree.map(
            lambda leaf: leaf[:size], jax.device_get(arrays)
        )
        return self._replace(
            metrics=metrics,
            finite=finite,
            sound=sound,
            server_finite=np.asarray(self.server_finite),
            bytes_up=bytes_up,
            bytes_down=np.asarray(self.bytes_down),
        )

    @property
    def rejected(self) -> int:
        """How many reported something that is not finite or too large; if fetched."""
        return int((~self.sound).sum())


def require_live(*states: State) -> None:
    """Refuses states that a round has consumed, and one that is given twice.

    Raises:
        ConsumedError: on every store, before anything is computed.
    """
    seen: set[int] = set()
    for state in states:
        leaves = jax.tree.leaves(state.clients)
        every = [*leaves, *jax.tree.leaves(state.server)]
        if any(leaf.is_deleted() for leaf in every if hasattr(leaf, "is_deleted")):
            raise ConsumedError(
                f"The state after round {state.round} is gone: the next round was "
                "played from it, which consumes it. Use the newest state instead: the "
                "one that this round returned, or `federation.state` in a loop over "
                "`rounds()`. If that round was interrupted or failed, begin again with "
                "`init()`, or go on from a run that was saved (`fm.load`)."
            )
        if seen & set(map(id, leaves)):
            raise ConsumedError(
                f"Every trial consumes a state of its own, but the one after round "
                f"{state.round} is given twice. Make one for each with `init()`."
            )
        seen.update(map(id, leaves))


def read_clients(
    state: State, groups: Sequence[Group], clients: np.ndarray, store: Store
) -> dict[int, tuple[Tree, Tree]]:
    """Reads some clients' private states and shared copies to the host, by id."""
    pairs = look_at_clients(state, groups, clients, store)
    return jax.tree.map(np.array, pairs)


def look_at_clients(
    state: State, groups: Sequence[Group], clients: np.ndarray, store: Store
) -> dict[int, tuple[Tree, Tree]]:
    """As `read_clients`, but maybe the store's own arrays, not to be changed."""
    pairs = {}
    for group in groups:
        members = np.intersect1d(group.clients, clients)
        if members.size:
            rows = np.searchsorted(group.clients, members).astype(np.int32)
            found = store.each(state.clients[group.name], rows)
            pairs.update(zip(members.tolist(), found, strict=True))
    return pairs


def named(private: Tree, shared: Tree) -> dict[str, Tree]:
    """A client's networks by name: the shared part, and what its state consists of."""
    parts = private._asdict() if hasattr(private, "_asdict") else {"state": private}
    return {"shared": shared, **parts}
