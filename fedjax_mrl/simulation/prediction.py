"""What trained clients say of new images, in any inference mode and on any store."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fedjax_mrl import discovery
from fedjax_mrl.protocol import Algorithm
from fedjax_mrl.simulation.evaluation import POINTS
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import State, read_clients, require_live
from fedjax_mrl.stores import Store

_IMAGES = 128  # at once; fewer are filled up to a power of two
_CLIENTS = 16  # whose states are on the host at once


def make(
    algorithm: Algorithm,
    groups: Sequence[Group],
    prepare: Callable[[jax.Array, jax.Array], jax.Array],
    store: Store,
) -> Callable[..., np.ndarray]:
    """Returns `predict`, from a state and images to logits.

    Args:
        algorithm: what was trained.
        groups: all clients, by architecture.
        prepare: images, index -> network inputs, as for test images.
        store: where states lie.

    Returns:
        A function of a state, images [B, H, W, C] as stored, a client (None is all),
        a head (None is the first) and a point, to the logits [B, L], or [N, B, L] of
        all clients. It raises ValueError for clients, heads and points that there are
        not, and for all clients where their tasks have different classes.
    """
    numbers = sorted(int(client) for group in groups for client in group.clients)
    broadcast_of = jax.jit(algorithm.server.broadcast)
    programs = {group.name: _program(algorithm, group, prepare) for group in groups}

    def predict(
        state: State,
        x: np.ndarray,
        client: int | None = None,
        head: str | None = None,
        point: str = "local",
    ) -> np.ndarray:
        head = algorithm.heads[0] if head is None else head
        for kind, word, known in (
            ("head", head, algorithm.heads),
            ("point", point, POINTS),
        ):
            if word not in known:
                raise ValueError(discovery.unknown(kind, str(word), known))
        wanted = numbers if client is None else [_client(client, len(numbers))]
        classes = {
            g.model.num_classes for g in groups if np.isin(wanted, g.clients).any()
        }
        if len(classes) > 1:
            raise ValueError(
                "The clients must have the same classes to be asked together, but have "
                f"tasks of {sorted(classes)} classes; ask each by itself, as client=0."
            )
        require_live(state)
        broadcast = (
            jax.device_get(broadcast_of(state.server)) if point != "local" else None
        )
        found: dict[int, np.ndarray] = {}
        for group, number, private, own in _states(state, groups, wanted, store):
            shared = own if broadcast is None else broadcast
            ask = lambda some, name=group.name, held=(shared, private): programs[name](
                *held, some, head=head
            )
            found[number] = _in_blocks(ask, x)
        if client is not None:
            return found[wanted[0]]
        return np.stack([found[number] for number in wanted])

    return predict


def _client(client: Any, number: int) -> int:
    whole = isinstance(client, (int, np.integer)) and not isinstance(client, bool)
    if not whole or not 0 <= client < number:
        raise ValueError(
            f"client must be a whole number from 0 to {number - 1}, or None for all; "
            f"got {client!r}."
        )
    return int(client)


def _program(algorithm: Algorithm, group: Group, prepare: Callable) -> Callable:
    predict = algorithm.client(group.model).predict

    def logits(shared, private, images, *, head):
        x = prepare(images, np.arange(images.shape[0], dtype=np.int32))
        return predict(shared, private, x)[head]

    return jax.jit(logits, static_argnames="head")


def _states(
    state: State, groups: Sequence[Group], wanted: Sequence[int], store: Store
) -> Iterator[tuple[Group, int, Any, Any]]:
    """Group, id, private state and shared copy of each wanted client, few at a time."""
    for group in groups:
        own = np.intersect1d(group.clients, wanted)
        for start in range(0, own.size, _CLIENTS):
            some = own[start : start + _CLIENTS]
            read = read_clients(state, [group], some, store)
            for number, (private, shared) in read.items():
                yield group, number, private, shared


def _in_blocks(ask: Callable[[np.ndarray], jax.Array], x: np.ndarray) -> np.ndarray:
    """Logits [B, L] of images in blocks of few sizes, each of which is compiled."""
    size = min(_IMAGES, 1 << (len(x) - 1).bit_length())
    found = []
    for start in range(0, len(x), size):
        some = x[start : start + size]
        more = size - len(some)
        filled = np.concatenate([some, np.zeros((more, *x.shape[1:]), x.dtype)])
        found.append(np.asarray(ask(filled))[: len(some)])
    return np.concatenate(found)
