"""Comparisons and toy federations that many tests share."""

import pathlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_mrl import algorithms
from fedjax_mrl.data import images
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import mlp
from fedjax_mrl.protocol import Examples, Model, Setup
from fedjax_mrl.simulation import evaluation, initialization, population, rounds
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import State

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
# Begins Python anew, heeding what a shell ignores in the background, and nohup: what is
# ignored stays so in a child.
HEEDING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def flags(options):
    """Options of a federation as words of a command line."""
    return [
        word
        for name, value in options.items()
        for word in (
            "--" + name.replace("_", "-"),
            ",".join(value) if isinstance(value, tuple) else str(value),
        )
    ]


def methods():
    """All methods for a test of each; most of them are left to the slow tests."""
    return [
        name
        if name in ("fedmrl", "fml", "standalone")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in algorithms.names()
    ]


def clockless(row):
    """A row of a table without what a clock said."""
    return {
        name: "" if name.startswith("seconds") else value for name, value in row.items()
    }


def assert_trees_equal(a: Any, b: Any) -> None:
    """Same structure, same bits."""
    chex.assert_trees_all_equal(jax.device_get(a), jax.device_get(b), strict=True)


def assert_trees_close(a: Any, b: Any, atol: float = 1e-5) -> None:
    """Same structure, values within `atol`."""
    chex.assert_trees_all_close(jax.device_get(a), jax.device_get(b), atol=atol, rtol=0)


def copy(tree: Any) -> Any:
    """A deep copy, for states that a round will consume."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


class Toy:
    """Eight clients of two small architectures on random separable images.

    Sizes differ from client to client, so that steps do too. All widths are 8, so
    that every algorithm can be built on it.
    """

    num_classes, shape, width = 4, (16, 16, 1), 8

    def __init__(self, name: str, *, seed: int = 0, same: bool = False, **options):
        draw = np.random.default_rng(7)
        y = np.arange(240) % self.num_classes
        pattern = draw.normal(size=(self.num_classes, *self.shape))
        x = pattern[y] + draw.normal(size=(240, *self.shape))
        x = np.clip(127 + 40 * x, 0, 255).astype(np.uint8)
        self.examples = Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32))
        sizes = [5, 17, 8, 30, 12, 9, 24, 3]
        ends = np.cumsum(sizes)
        order = draw.permutation(140).astype(np.int32)
        self.train = [
            np.sort(order[e - s : e]) for s, e in zip(sizes, ends, strict=True)
        ]
        self.test = np.split(np.arange(140, 236, dtype=np.int32), 8)
        self.models = [self.small("a", 6), self.small("b", 4)]
        if same:
            self.models = [self.small("a", 6)]
        self.setup = Setup(
            shared=lambda width: self.small("a" if same else "s", 6, width),
            feature_dim=self.width,
            num_classes=self.num_classes,
            optimizer=optimizers.sgd(
                options.pop("learning_rate", 0.05),
                momentum=options.pop("momentum", 0.9),
                weight_decay=options.pop("weight_decay", 1e-3),
                clip_norm=options.pop("clip_norm", 50.0),
            ),
            prepare=images.prepare((0.5,), (0.25,), "none"),
            num_rounds=4,
        )
        settings = {
            "cohort_size": options.pop("cohort_size", 5),
            "epochs": options.pop("epochs", 2),
            "batch_size": options.pop("batch_size", 4),
            "chunk": options.pop("chunk", 1),
            "sweep_batch_size": 8,
        }
        self.hooks = {
            key: options.pop(key) for key in ("sample", "schedule") if key in options
        }
        if name.startswith("fedmrl"):
            options.setdefault("shared_dim", 3)
        self.algorithm = algorithms.build(name, self.setup, **options)
        self.groups = population.assign(8, self.models)
        self.config = RoundConfig(seed=seed, **settings)
        self.holdout = [part[:2] for part in self.train]

    def small(self, name: str, hidden: int, width: int | None = None) -> Model:
        # Perceptrons compile fast; convolutions have tests of their own.
        return mlp.mlp(
            self.shape,
            self.num_classes,
            hidden=hidden,
            feature_dim=width or self.width,
        )._replace(name=name)

    def init(self) -> State:
        return initialization.init(self.algorithm, self.groups, self.config)

    def make(self):
        return rounds.make(
            self.algorithm,
            self.groups,
            self.examples,
            self.train,
            self.config,
            holdout=self.holdout,
            **self.hooks,
        )

    def evaluate(self, chunk: int = 1):
        test = evaluation.EvaluationSet(
            self.examples, self.test, self.setup.prepare.test
        )
        return evaluation.make(
            self.algorithm,
            self.groups,
            test,
            batch_size=8,
            chunks=dict.fromkeys([group.name for group in self.groups], chunk),
        )

    def after(self, num_rounds: int, state: State | None = None):
        """The state after some rounds."""
        play = self.make()
        state = self.init() if state is None else state
        for _ in range(num_rounds):
            state, _ = play(state)
        return state

    def client_states(self, state: State) -> dict[int, Any]:
        """Every client's private state by id, on the host."""
        state = jax.device_get(state)  # indexing there compiles nothing
        return {
            int(client): jax.tree.map(
                lambda leaf, i=i: leaf[i], state.clients[g.name][0]
            )
            for g in self.groups
            for i, client in enumerate(g.clients)
        }


def names() -> list[Any]:
    """All algorithms for a test of each; ablations are left to the slow tests."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if ablates(name) else name
        for name in algorithms.names()
    ]


def ablates(name: str) -> bool:
    """Whether a method is FedMRL with a part of it changed."""
    return name.startswith("fedmrl_")


def homogeneous(name: str) -> bool:
    """Whether the algorithm refuses clients of different architectures."""
    toy = Toy(name)
    try:
        for model in toy.models:
            toy.algorithm.client(model)
    except ValueError:
        return True
    return False


def toy(name: str, **options: Any) -> Toy:
    """A toy federation of the algorithm, of one architecture where it needs one."""
    return Toy(name, same=homogeneous(name), **options)
