"""A federation small enough to be computed by hand, and the hand.

Networks are linear - tanh - linear on 5 inputs, for 3 classes. Three clients of two
architectures have 7, 3 and 6 examples; batches of 4 leave partial ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl import algorithms
from fedjax_mrl.data import images
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import Batches, Examples, Model, Network, Setup, Visit
from fedjax_mrl.simulation import batches, initialization, population, rounds
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import Played, State

INPUTS, CLASSES, WIDTH = (1, 1, 5), 3, 4
SIZES = (7, 3, 6)


def model(name: str, width: int) -> Model:
    """A network whose representation has the given width."""

    def init(key):
        # Cheaper to compile than random numbers, and another one for another key.
        phase = (jax.random.key_data(key)[0] % 8192).astype(jnp.float32)

        def some(rows, columns):
            at = jnp.arange((rows + 1) * columns, dtype=jnp.float32) * (rows + 0.7)
            values = 0.7 * jnp.sin(at + phase).reshape(rows + 1, columns)
            return {"kernel": values[1:], "bias": values[0]}

        return Network(some(5, width), some(width, CLASSES))

    def features(params, x):
        return jnp.tanh(layers.linear(params, x.reshape(x.shape[0], -1)))

    return Model(name, init, features, layers.linear, width, CLASSES)


class Tiny:
    """A method on this federation; `step` and `forward` are NumPy.

    Args:
        name: of the method.
        widths: of the architectures' representations.
        holdout: examples kept out of each client's training part.
        sgd: what differs from the optimizer's settings here.
        **options: hyper-parameters.
    """

    def __init__(
        self,
        name: str,
        *,
        widths: tuple[int, ...] = (WIDTH, WIDTH + 1),
        holdout: tuple[int, ...] = (0, 0, 0),
        cohort_size: int = 3,
        sgd: dict[str, float] | None = None,
        **options: Any,
    ) -> None:
        draw = np.random.default_rng(5)
        self.x = draw.normal(size=(24, *INPUTS))
        self.y = draw.integers(0, CLASSES, 24)
        self.examples = Examples(jnp.asarray(self.x), jnp.asarray(self.y, jnp.int32))
        parts = np.split(np.arange(24, dtype=np.int32), np.cumsum(SIZES))
        self.train = parts[:3]
        kept = np.split(parts[3], np.cumsum(holdout))
        self.holdout = kept[:3]
        self.sgd = {
            "learning_rate": 0.3,
            "momentum": 0.9,
            "weight_decay": 1e-2,
            "clip_norm": 0.3,
        } | (sgd or {})
        self.setup = Setup(
            shared=lambda width: model("common", width),
            feature_dim=WIDTH,
            num_classes=CLASSES,
            optimizer=optimizers.sgd(**self.sgd),
            prepare=images.prepare((0.0,), (1.0,), "raw"),
            num_rounds=3,
        )
        self.algorithm = algorithms.build(name, self.setup, **options)
        self.models = [model(f"m{width}", width) for width in widths]
        self.groups = population.assign(3, self.models)
        self.config = RoundConfig(
            seed=3,
            cohort_size=cohort_size,
            epochs=2,
            batch_size=4,
            sweep_batch_size=2,
            same_start=False,
        )

    def init(self) -> State:
        """The first state, in the working precision."""
        with jax.enable_x64(False):  # initial weights are drawn in float32
            state = initialization.init(self.algorithm, self.groups, self.config)
        dtype = self.examples.x.dtype
        floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
        cast = lambda leaf: leaf.astype(dtype) if floating(leaf) else leaf
        return State(state.round, *jax.tree.map(cast, tuple(state[1:])))

    def play(
        self, num_rounds: int, state: State | None = None
    ) -> list[tuple[State, Played]]:
        """Plays rounds from a state, which is consumed; states are on the host."""
        play = rounds.make(
            self.algorithm,
            self.groups,
            self.examples,
            self.train,
            self.config,
            holdout=self.holdout,
        )
        state, seen = state or self.init(), []
        for _ in range(num_rounds):
            state, played = play(state)
            seen.append((jax.device_get(state), played))
        return seen

    def states(self, state: State) -> list[Any]:
        """Every client's private state."""
        return [self.of_client(state, k)[0] for k in range(3)]

    def visit(self, index: np.ndarray, round: int = 1) -> Visit:
        """A visit of one step on the given positions [B], -1 for none."""
        one = Batches(jnp.asarray(index, jnp.int32)[None, :], jnp.int32(1))
        none = Batches(jnp.full_like(one.index, -1), jnp.int32(0))
        return Visit(self.examples, one, one, none, jnp.int32(round))

    def minibatches(self, round: int, k: int):
        """A client's minibatches: inputs [n, 5] and one-hot labels [n, 3]."""
        for row in batches.local_epochs(
            self.train, round, k, seed=3, epochs=2, batch_size=4
        ):
            yield self.rows(row[row >= 0])

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and one-hot labels at some positions."""
        return self.x[index].reshape(-1, 5), np.eye(CLASSES)[self.y[index]]

    def step(self, params: list, gradients: list, momentum: list) -> None:
        """Clip, decay, momentum, step: in place, for one network."""
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        scale = 1.0
        if self.sgd["clip_norm"]:
            scale = min(1.0, self.sgd["clip_norm"] / (norm + 1e-6))
        for p, g, v in zip(params, gradients, momentum, strict=True):
            v *= self.sgd["momentum"]
            v += g * scale + self.sgd["weight_decay"] * p
            p -= self.sgd["learning_rate"] * v

    def of_client(self, state: State, k: int) -> tuple[Any, Any]:
        """A client's private state and shared copy."""
        group = next(g for g in self.groups if k in g.clients)
        row = int(np.searchsorted(group.clients, k))
        return jax.tree.map(lambda leaf: leaf[row], state.clients[group.name])


def arrays(tree: Any) -> list[np.ndarray]:
    """Copies of a tree's leaves; of a network: bias, kernel, bias, kernel."""
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def forward(params: list, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Representation and logits."""
    b1, w1, b2, w2 = params
    r = np.tanh(x @ w1 + b1)
    return r, r @ w2 + b2


def backward(params: list, x: np.ndarray, dz: np.ndarray, dr: Any = 0.0) -> list:
    """Gradients, from those by the logits and directly by the representation."""
    _, _, _, w2 = params
    r, _ = forward(params, x)
    hidden = (dz @ w2.T + dr) * (1 - r**2)
    return [hidden.sum(0), x.T @ hidden, dz.sum(0), r.T @ dz]


def softmax(z: np.ndarray) -> np.ndarray:
    """Probabilities of logits [n, 3]."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def close(ours: Any, theirs: list, atol: float) -> None:
    """Compares a tree with a list of arrays."""
    leaves = jax.tree.leaves(ours)
    assert len(leaves) == len(theirs)
    for a, b in zip(leaves, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)
