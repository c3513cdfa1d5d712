"""Tests every client on its own test part, in every inference mode, at both points.

`local` is a client with the shared part as it last held it: right after its own
training, before aggregation, which is when the papers test. `global` is the same
client with the newest aggregate. Both are computed in one program, so that the
private extractor, equal at both points, runs once.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from fedjax_mrl import sharding, stores
from fedjax_mrl.learning import losses
from fedjax_mrl.protocol import UNKNOWN, Algorithm, Batches, Examples
from fedjax_mrl.simulation import batches
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import State, require_live
from fedjax_mrl.stores import Store

POINTS = ("local", "global")


class Scores(NamedTuple):
    """Exact counts; index [point, head, client]."""

    correct: np.ndarray  # int32 [2, heads, N]
    loss_sum: np.ndarray  # float32 [2, heads, N], summed cross-entropy
    num_test: np.ndarray  # int32 [N]
    num_loss: np.ndarray  # int32 [2, heads, N], examples that have a loss

    @property
    def accuracy(self) -> np.ndarray:
        """[2, heads, N]; NaN for a client without test examples."""
        with np.errstate(invalid="ignore"):
            return self.correct / self.num_test

    @property
    def loss(self) -> np.ndarray:
        """[2, heads, N], a mean over the examples that have one; NaN if none has.

        An example has no loss where its class has no prototype (`protocol.UNKNOWN`).
        """
        with np.errstate(invalid="ignore"):
            return self.loss_sum / self.num_loss


def make(
    algorithm: Algorithm,
    groups: Sequence[Group],
    examples: Examples,
    test: Sequence[np.ndarray],
    prepare: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    batch_size: int = 128,
    chunk: int = 1,
    chunks: Mapping[str, int] = types.MappingProxyType({}),
    mesh: Mesh | None = None,
    store: Store | None = None,
) -> Callable[[State], Scores]:
    """Returns `evaluate`, from a state to the scores of all clients.

    Args:
        algorithm: what is running.
        groups: all clients, by architecture.
        examples: the test images.
        test: for each client, the positions of its test examples.
        prepare: images, index -> network inputs.
        batch_size: examples at once.
        chunk: clients at once on a device; 0 is all of them.
        chunks: of groups by name, where it is another.
        mesh: devices that the clients are split over; by default the first one.
        store: where the states lie; by default on the devices.
    """
    mesh = mesh or sharding.mesh(1)
    store = store or stores.make("device", mesh)
    num_test = np.array([part.size for part in test], np.int32)
    batch_size = batches.fitting(batch_size, test)
    examples = jax.device_put(examples, sharding.everywhere(mesh))
    programs = {
        group.name: _program(
            algorithm, group, prepare, chunks.get(group.name, chunk), mesh
        )
        for group in groups
    }
    labelled = {group.name: group.relabel(examples) for group in groups}
    tables = {
        group.name: batches.in_order([test[c] for c in group.clients], batch_size)
        for group in groups
    }
    broadcast_of = jax.jit(
        algorithm.server.broadcast, out_shardings=sharding.everywhere(mesh)
    )

    def of_group(state, group, broadcast):
        """What `_count` yields [N_g, points, heads], block by block."""
        table, number = tables[group.name], group.clients.size
        size = store.block_size(number)
        for start in range(0, number, size):
            rows = np.arange(start, start + size, dtype=np.int32)
            inside = np.minimum(rows, number - 1)
            steps = np.where(rows < number, table.steps[inside], 0)
            block = Batches(table.index[inside], steps.astype(np.int32))
            states, shared_copies = store.block(state.clients[group.name], rows)
            yield programs[group.name](
                states, shared_copies, broadcast, labelled[group.name], block
            )

    def evaluate(state: State) -> Scores:
        require_live(state)
        broadcast = broadcast_of(state.server)
        results = {
            group.name: list(of_group(state, group, broadcast)) for group in groups
        }
        shape = (len(POINTS), len(algorithm.heads), len(test))
        correct, loss = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        counted = np.zeros(shape, np.int32)
        for group in groups:
            blocks = stores.on_host(results[group.name], mesh)
            c, l, n = (
                np.concatenate(leaves)[: group.clients.size]
                for leaves in zip(*blocks, strict=True)
            )
            correct[:, :, group.clients] = np.moveaxis(c, 0, -1)
            loss[:, :, group.clients] = np.moveaxis(l, 0, -1)
            counted[:, :, group.clients] = np.moveaxis(n, 0, -1)
        return Scores(correct, loss, num_test, counted)

    return evaluate


def _program(
    algorithm: Algorithm, group: Group, prepare: Callable, chunk: int, mesh: Mesh
) -> Callable:
    predict = algorithm.client(group.model).predict

    def score(states, shared_copies, broadcast, examples, tables):
        def one(client):
            state, copy, table = client
            zero = jnp.zeros((len(POINTS), len(algorithm.heads)))
            whole = zero.astype(jnp.int32)
            start = (whole, zero.astype(jnp.float32), whole)

            def step(i, sums):
                index = table.index[i]
                x, y = prepare(examples.x, index), examples.y[jnp.maximum(index, 0)]
                points = [predict(shared, state, x) for shared in (copy, broadcast)]
                counted = [
                    [_count(logits[head], y, index >= 0) for head in algorithm.heads]
                    for logits in points
                ]
                found = jax.tree.map(
                    lambda *rows: jnp.stack(rows),
                    *[
                        jax.tree.map(lambda *cells: jnp.stack(cells), *row)
                        for row in counted
                    ],
                )
                return jax.tree.map(jnp.add, sums, found)

            return lax.fori_loop(0, table.steps, step, start)

        clients = (states, shared_copies, Batches(*tables))
        number = tables.steps.shape[0]
        size = number if chunk == 0 else min(chunk, number)
        if size == 1:
            return lax.map(one, clients)
        return lax.map(one, clients, batch_size=size)

    split, whole = sharding.OVER_CLIENTS, sharding.EVERYWHERE
    return jax.jit(
        jax.shard_map(
            score,
            mesh=mesh,
            in_specs=(split, split, whole, whole, split),
            out_specs=split,
            check_vma=False,  # nothing is exchanged inside
        )
    )


def _count(logits, y, mask):
    """Right ones, the sum of losses, and how many have a loss, of a minibatch."""
    right = (jnp.argmax(logits, axis=-1) == y) & mask
    own = jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]
    has = mask & (own != UNKNOWN)  # what is no number has: it must be seen
    loss = losses.cross_entropy_per_example(logits, y)
    loss = jnp.where(has, loss, jnp.zeros((), loss.dtype)).sum()
    whole = lambda values: values.sum().astype(jnp.int32)
    return whole(right), loss.astype(jnp.float32), whole(has)


def summarise(
    scores: Scores, heads: Sequence[str]
) -> list[dict[str, float | str | None]]:
    """Rows of metrics.csv: one for each point and head, over clients with tests.

    `mean_loss` is a mean over the clients that have one (`Scores.loss`), or None.
    """
    tested = scores.num_test > 0
    rows = []
    for (p, point), (h, head) in (
        (a, b) for a in enumerate(POINTS) for b in enumerate(heads)
    ):
        accuracy = scores.accuracy[p, h, tested]
        total = int(scores.num_test.sum())
        loss = scores.loss[p, h, scores.num_loss[p, h] > 0]
        rows.append(
            {
                "point": point,
                "head": head,
                "clients": int(tested.sum()),
                "mean_accuracy": float(accuracy.mean()),
                "std_accuracy": float(accuracy.std()),
                "weighted_accuracy": float(scores.correct[p, h].sum() / total),
                "mean_loss": float(loss.mean()) if loss.size else None,
            }
        )
    return rows
