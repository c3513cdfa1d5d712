"""Tests every client on its own test part, in every inference mode, at both points.

`local` is a client with the shared part as it last held it: right after its own
training, before aggregation, which is when the papers test. `global` is the same
client with the newest aggregate. Both are computed in one program, so that the
private extractor, equal at both points, runs once.
"""

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from fedjax_mrl import sharding, stores
from fedjax_mrl.learning import losses
from fedjax_mrl.ops import backend
from fedjax_mrl.protocol import UNKNOWN, Algorithm, Batches, Examples, Tree
from fedjax_mrl.simulation import batches
from fedjax_mrl.simulation.population import Group
from fedjax_mrl.simulation.state import State, require_live
from fedjax_mrl.stores import Store

POINTS = ("local", "global")
_AT_ONCE = 32  # clients on a device, where no number is said: memory must hold them


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


class EvaluationSet(NamedTuple):
    """The examples that clients are tested on.

    Attributes:
        examples: the test images of all.
        positions: for each client, those of its test examples.
        prepare: images, index -> network inputs.
    """

    examples: Examples
    positions: Sequence[np.ndarray]
    prepare: Callable[[jax.Array, jax.Array], jax.Array]


class _GroupTest(NamedTuple):
    """The test of one group."""

    group: Group
    program: Callable
    examples: Examples  # on the devices, labelled as the group's task
    table: Batches  # of each of its clients


def make(
    algorithm: Algorithm,
    groups: Sequence[Group],
    test: EvaluationSet,
    *,
    batch_size: int = 128,
    chunks: Mapping[str, int] = types.MappingProxyType({}),
    store: Store | None = None,
) -> Callable[..., Scores]:
    """Returns `evaluate`, from a state to the scores of all clients.

    It takes a second argument, a function that is told how many clients were tested,
    group by group.

    Args:
        algorithm: what is running.
        groups: all clients, by architecture.
        test: their test examples.
        batch_size: examples at once.
        chunks: clients at once on a device, of groups by name: by default 1; 0 is all
            of them.
        store: where the states lie; by default on the first device.
    """
    store = store or stores.make("device", sharding.mesh(1))
    num_test = np.array([positions.size for positions in test.positions], np.int32)
    batch_size = batches.fitting(batch_size, test.positions)
    whole = sharding.everywhere(store.mesh)
    examples = jax.device_put(test.examples, whole)

    def test_of(group: Group) -> _GroupTest:
        chunk = chunks.get(group.name, 1)
        score = _score_client(algorithm, group, test.prepare)
        positions = [test.positions[client] for client in group.clients]
        return _GroupTest(
            group,
            _program(score, chunk, store.mesh),
            group.relabel(examples),
            batches.in_order(positions, batch_size),
        )

    tests = [test_of(group) for group in groups]
    broadcast_of = jax.jit(algorithm.server.broadcast, out_shardings=whole)

    def evaluate(
        state: State, done: Callable[[int], object] = lambda clients: None
    ) -> Scores:
        require_live(state)
        broadcast = broadcast_of(state.server)
        blocks = _begun(tests, state, broadcast, store)
        shape = (len(POINTS), len(algorithm.heads), num_test.size)
        correct, loss = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        counted = np.zeros(shape, np.int32)
        for group, of_group in zip(groups, blocks, strict=True):
            found = stores.on_host(of_group, store.mesh)
            _enter((correct, loss, counted), group.clients, found)
            done(group.clients.size)
        return Scores(correct, loss, num_test, counted)

    return evaluate


def _enter(
    scores: Sequence[np.ndarray], clients: np.ndarray, blocks: Sequence[Any]
) -> None:
    """Enters the sums of a group's blocks into those of all clients."""
    for whole, column in zip(scores, zip(*blocks, strict=True), strict=True):
        values = np.concatenate(column)[: clients.size]
        whole[:, :, clients] = np.moveaxis(values, 0, -1)


def _begun(
    tests: Sequence[_GroupTest], state: State, broadcast: Tree, store: Store
) -> list[list[Any]]:
    """By group its blocks, which may still be computed.

    All are begun before the first is waited for; of a store in memory, whose states
    are copied for a test, no more than two at a time.
    """
    blocks, before = [], None
    for test in tests:
        of_group = []
        for block in _blocks(test, state, broadcast, store):
            of_group.append(block)
            if store.through_host:
                jax.block_until_ready(before)
            before = block
        blocks.append(of_group)
    return blocks


def _blocks(
    test: _GroupTest, state: State, broadcast: Tree, store: Store
) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """The sums of `_count` [R, points, heads] of a group's clients, block by block."""
    handle, table = state.clients[test.group.name], test.table
    number = test.group.clients.size
    size = store.block_size(number)
    for start in range(0, number, size):
        rows = np.arange(start, start + size, dtype=np.int32)
        inside = np.minimum(rows, number - 1)
        steps = np.where(rows < number, table.steps[inside], 0)
        block = Batches(table.index[inside], steps.astype(np.int32))
        states, shared = store.block(handle, rows)
        yield test.program(states, shared, broadcast, test.examples, block)


def _score_client(algorithm: Algorithm, group: Group, prepare: Callable) -> Callable:
    """Returns the test of one client: its sums of `_count` [points, heads]."""
    # Traced once for both points, and gone from what is compiled.
    predict = jax.jit(algorithm.client(group.model).predict, inline=True)
    heads = algorithm.heads
    stack = lambda *values: jnp.stack(values)

    def score(client, broadcast, examples):
        state, shared, table = client
        zero = jnp.zeros((len(POINTS), len(heads)))
        whole = zero.astype(jnp.int32)
        start = (whole, zero.astype(jnp.float32), whole)

        def step(i, sums):
            index = table.index[i]
            x, y = prepare(examples.x, index), examples.y[jnp.maximum(index, 0)]
            points = [predict(shared, state, x), predict(broadcast, state, x)]
            counts = [
                [_count(logits[head], y, index >= 0) for head in heads]
                for logits in points
            ]
            rows = [jax.tree.map(stack, *row) for row in counts]
            return jax.tree.map(jnp.add, sums, jax.tree.map(stack, *rows))

        return lax.fori_loop(0, table.steps, step, start)

    return score


def _program(score: Callable, chunk: int, mesh: Mesh) -> Callable:
    """Runs `score` for every client of a block, on the device that has its state."""

    def on_device(states, shared, broadcast, examples, tables):
        score_one = lambda client: score(client, broadcast, examples)
        clients = (states, shared, Batches(*tables))
        number = tables.steps.shape[0]
        size = min(chunk or _AT_ONCE, number)
        if size == 1:
            return lax.map(score_one, clients)
        return lax.map(score_one, clients, batch_size=size)

    split, whole = sharding.OVER_CLIENTS, sharding.EVERYWHERE
    return jax.jit(
        jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(split, split, whole, whole, split),
            out_specs=split,
            check_vma=False,  # nothing is exchanged inside
        ),
        compiler_options=backend.compiling(mesh.devices.flat[0].platform),
    )


def _count(logits, y, mask):
    """Right ones, the sum of losses, and how many have a loss, of a minibatch."""
    right = (jnp.argmax(logits, axis=-1) == y) & mask
    logit = jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]
    has = mask & (logit != UNKNOWN)  # one that is no number has: it must be seen
    loss = losses.cross_entropy_per_example(logits, y)
    loss = jnp.where(has, loss, jnp.zeros((), loss.dtype)).sum()
    whole = lambda values: values.sum().astype(jnp.int32)
    return whole(right), loss.astype(jnp.float32), whole(has)


def summarise(
    scores: Scores, heads: Sequence[str]
) -> list[dict[str, float | str | None]]:
    """Rows of metrics.csv: one for each point and head, over clients with tests.

    `mean_loss` is a mean over the clients that have one (`Scores.loss`), or None.
    `worst_accuracy` is the lowest of any client, `p10_accuracy` the tenth percentile,
    interpolated: a tenth of the clients are below it.
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
                "worst_accuracy": float(accuracy.min()),
                "p10_accuracy": float(np.percentile(accuracy, 10)),
            }
        )
    return rows
