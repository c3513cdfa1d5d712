"""What trained clients with a nested representation answer at every width of it.

FedMRL fuses the representations of the small shared network and of the client's own
into one vector R~ of width d2. The coarse header reads its first d1 numbers, the fine
header all of them. Here a header reads the first w numbers only, the rest being zero,
for every w from 1 on:

    logits_w = bias + sum_{j <= w} R~_j kernel_j       kernel [D, L], bias [L]

which are partial sums of one product: the networks run once, and a scan along the
representation adds one number after another and notes the class that leads. At full
width these are the method's own answers, `mix_small` and `mix_large`. It takes a header
that is one linear layer, which is checked.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_mrl import numerics
from fedjax_mrl.learning import fusion
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Params
from fedjax_mrl.reporting.error import ReportError
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import read_clients

if TYPE_CHECKING:
    from fedjax_mrl.federation import Federation

HEAD = "mix_large"  # the inference mode of methods that fuse representations
_IMAGES = 128  # at once
_FEW = 8  # clients whose states are on the host at once
_TOLERANCE = 1e-3  # of logits at full width, relative to the largest


class Answers(NamedTuple):
    """What one client makes of its test examples.

    Attributes:
        client: its number.
        labels: of its n test examples, [n].
        fused: R~ [n, d2].
        coarse: the class that the coarse header says at each width, [n, d1]; [n, 0]
            of a method without one.
        fine: likewise the fine header, [n, d2].
    """

    client: int
    labels: np.ndarray
    fused: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray


def answers(federation: "Federation", clients: Sequence[int]) -> list[Answers]:
    """The answers of some clients of a federation's newest state, at point `local`.

    Clients without test examples are left out.

    Raises:
        ReportError: if the method does not fuse representations, or a header is not
            one linear layer.
    """
    state = federation.state
    assert state is not None
    found = []
    tests = federation.partition.test
    wanted = np.array([k for k in clients if tests[k].size], int)
    for group in federation.groups:
        members = np.intersect1d(group.clients, wanted)
        ask: Callable | None = None
        for start in range(0, members.size, _FEW):
            few = members[start : start + _FEW]
            read = read_clients(state, [group], few, federation.store)
            for client, (private, shared) in sorted(read.items()):
                if ask is None:
                    ask = _program(federation, group, private, shared)
                found.append(_of_client(federation, group, ask, client, read[client]))
    return sorted(found, key=lambda each: each.client)


def _of_client(
    federation: "Federation",
    group: Group,
    ask: Callable,
    client: int,
    networks: tuple[Any, Any],
) -> Answers:
    """One client's answers; `networks` are its private state and its shared part."""
    where = federation.partition.test[client]
    labels = np.asarray(federation.dataset.y_test[where])
    if group.labels is not None:
        labels = np.asarray(group.labels)[labels]
    images = federation.dataset.x_test[where]
    with numerics.fixed(federation.config.precision):
        fused, coarse, fine, off = _in_blocks(lambda x: ask(*networks, x), images)
    if not np.all(off <= _TOLERANCE):
        raise ReportError(
            f"the header of {group.name} is not one linear layer, so that its answers "
            "at smaller widths are no partial sums"
        )
    return Answers(client, labels, fused, coarse, fine)


def _program(
    federation: "Federation", group: Group, private: Any, shared: Any
) -> Callable:
    """The compiled inference of a group: networks, images -> what `Answers` keeps.

    Args:
        federation: with the method.
        group: of clients of one architecture.
        private: the state of one of them, for its shapes.
        shared: likewise its shared part.
    """
    if not isinstance(private, fusion.ClientState):
        raise ReportError("the method has no fused representation")
    width = private.projector["kernel"].shape[1]
    small = federation.setup.shared(private.projector["kernel"].shape[0] - width)
    prepare, model = federation.setup.prepare.test, group.model
    headers = [private.private.header, *([shared.header] if shared.header else [])]
    if not all(map(_linear, headers)):
        raise ReportError(f"a header of {group.name} is not one linear layer")

    def ask(private, shared, images):
        x = prepare(images, jnp.arange(images.shape[0], dtype=jnp.int32))
        spliced = jnp.concatenate(
            [
                small.features(shared.extractor, x),
                model.features(private.private.extractor, x),
            ],
            axis=-1,
        )  # R: [B, d1 + d2]
        fused = layers.linear(private.projector, spliced)  # R~: [B, d2]
        fine, last = prefixes(private.private.header, fused)
        off = _apart(last, model.head(private.private.header, fused))
        coarse = jnp.zeros((fused.shape[0], 0), jnp.int32)
        if shared.header:
            coarse, last = prefixes(shared.header, fused)
            own = small.head(shared.header, fused[:, : coarse.shape[1]])
            off = jnp.maximum(off, _apart(last, own))
        return fused, coarse, fine, off

    return jax.jit(ask)


def prefixes(header: Params, fused: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The classes that a linear header says at each width, in one pass.

    Args:
        header: kernel [D, L], bias [L].
        fused: the representation [B, at least D].

    Returns:
        Classes [B, D], where place w - 1 is that of the first w numbers, and the
        logits [B, L] of all D.
    """
    kernel, bias = header["kernel"], header["bias"]
    start = jnp.broadcast_to(bias, (fused.shape[0], bias.shape[0]))

    def step(logits, number):
        value, row = number  # [B], [L]
        logits = logits + value[:, None] * row[None, :]
        return logits, jnp.argmax(logits, axis=-1).astype(jnp.int32)

    columns = fused[:, : kernel.shape[0]].T
    last, classes = lax.scan(step, start, (columns, kernel))
    return classes.T, last


def _linear(header: Params) -> bool:
    """Whether a header has the parameters of one linear layer."""
    named = isinstance(header, Mapping) and set(header) == {"kernel", "bias"}
    return named and np.ndim(header["kernel"]) == 2 and np.ndim(header["bias"]) == 1


def _apart(found: jax.Array, own: jax.Array) -> jax.Array:
    """How far logits [B, L] are from a header's own, [B], relative to the largest."""
    largest = jnp.maximum(jnp.abs(own).max(axis=-1), 1.0)
    return jnp.abs(found - own).max(axis=-1) / largest


def _in_blocks(ask: Callable, images: np.ndarray) -> list[np.ndarray]:
    """The arrays [n, ...] that `ask` makes of images, block by block of one size."""
    size = min(_IMAGES, 1 << (len(images) - 1).bit_length())
    parts = []
    for start in range(0, len(images), size):
        block = images[start : start + size]
        padding = np.zeros((size - len(block), *images.shape[1:]), images.dtype)
        made = ask(np.concatenate([block, padding]))
        parts.append([np.asarray(each)[: len(block)] for each in made])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def accuracies(found: Sequence[Answers], header: str) -> np.ndarray:
    """Mean accuracy of clients at each width, [D], as `mean_accuracy` is a mean.

    A client whose representation is narrower than others' keeps its full width's.

    Args:
        found: of the clients.
        header: "coarse" or "fine".
    """
    each = []
    for one in found:
        right = getattr(one, header) == one.labels[:, None]
        each.append(right.mean(axis=0))
    widest = max(row.size for row in each)
    padded = [
        np.pad(row, (0, widest - row.size), mode="edge") for row in each if row.size
    ]
    return np.mean(padded, axis=0) if padded else np.zeros(0)
