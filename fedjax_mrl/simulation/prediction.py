"""The predictions of trained clients for new images, in any inference mode."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import discovery
from fedjax_mrl.protocol import Algorithm, Array, Tree
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
    clients = sorted(int(client) for group in groups for client in group.clients)
    broadcast_of = jax.jit(algorithm.server.broadcast)
    programs = {group.name: program(algorithm, group, prepare) for group in groups}

    def predict(
        state: State,
        x: np.ndarray,
        client: int | None = None,
        head: str | None = None,
        point: str = "local",
    ) -> np.ndarray:
        head = algorithm.heads[0] if head is None else head
        require_known("head", head, algorithm.heads)
        require_known("point", point, POINTS)
        wanted = clients if client is None else [require_client(client, len(clients))]
        _require_same_classes(groups, wanted)
        require_live(state)
        broadcast = None
        if point != "local":
            broadcast = jax.device_get(broadcast_of(state.server))
        logits: dict[int, np.ndarray] = {}
        for group, number, (private, shared) in _pairs(state, groups, wanted, store):
            newest = shared if broadcast is None else broadcast
            ask = functools.partial(programs[group.name], newest, private, head=head)
            logits[number] = in_blocks(ask, x)
        if client is not None:
            return logits[wanted[0]]
        return np.stack([logits[number] for number in wanted])

    return predict


def require_known(kind: str, word: str, known: Sequence[str]) -> None:
    if not isinstance(word, str) or word not in known:
        text = discovery.unknown(kind, str(word), known)
        raise ValueError(f"{text} Give one name; ask once for each.")


def _require_same_classes(groups: Sequence[Group], wanted: Sequence[int]) -> None:
    classes = {
        group.model.num_classes
        for group in groups
        if np.isin(wanted, group.clients).any()
    }
    if len(classes) > 1:
        raise ValueError(
            "The clients must have the same classes to be asked together, but have "
            f"tasks of {sorted(classes)} classes; ask each by itself, as client=0."
        )


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, Python's or NumPy's; a bool is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def require_client(client: object, number: int) -> int:
    """Returns a client's number as an int.

    Raises:
        ValueError: if there is no such client among `number`.
    """
    if not is_whole(client) or not 0 <= client < number:
        raise ValueError(
            f"client must be a whole number from 0 to {number - 1}, or None for all; "
            f"got {client!r}."
        )
    return int(client)


def program(algorithm: Algorithm, group: Group, prepare: Callable) -> Callable:
    """Returns the compiled inference of a group; arguments as of `logits_of`."""
    return jax.jit(logits_of(algorithm, group, prepare), static_argnames="head")


def logits_of(algorithm: Algorithm, group: Group, prepare: Callable) -> Callable:
    """Returns the inference of a group.

    Args:
        algorithm: the method.
        group: its clients have one architecture.
        prepare: images, index -> network inputs.

    Returns:
        A function of a shared part, a private state, images [B, ...] as stored and
        `head`, to logits [B, L].
    """
    predict = algorithm.client(group.model).predict

    def logits(shared, private, images, *, head):
        x = prepare(images, jnp.arange(images.shape[0], dtype=jnp.int32))
        return predict(shared, private, x)[head]

    return logits


def _pairs(
    state: State, groups: Sequence[Group], wanted: Sequence[int], store: Store
) -> Iterator[tuple[Group, int, tuple[Tree, Tree]]]:
    """Group, id, private state and shared copy of each wanted client, a few at once."""
    for group in groups:
        clients = np.intersect1d(group.clients, wanted)
        for start in range(0, clients.size, _CLIENTS):
            few = clients[start : start + _CLIENTS]
            for number, pair in read_clients(state, [group], few, store).items():
                yield group, number, pair


def in_blocks(ask: Callable[[np.ndarray], Array], x: np.ndarray) -> np.ndarray:
    """Logits [B, L] of images in blocks of few sizes, each of which is compiled."""
    size = min(_IMAGES, 1 << (len(x) - 1).bit_length())
    logits = []
    for start in range(0, len(x), size):
        block = x[start : start + size]
        missing = size - len(block)
        padding = np.zeros((missing, *x.shape[1:]), x.dtype)
        padded = np.concatenate([block, padding])
        logits.append(np.asarray(ask(padded))[: len(block)])
    return np.concatenate(logits)
