"""Runs our code on the cases of an independent float64 oracle.

A case is an npz of four clients with two architectures, two rounds, given
minibatches and given participants. The full cases lie beside the project
(`../shared/golden`). Where they are absent, the tests use the small copies in
`tests/fixtures`, in which every tensor is represented by three projections, and which
take images and initial weights from that of FedMRL, since all cases have the same.
`python -m tests.oracle` makes the copies anew.
"""

import math
import operator
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_mrl.data import images
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import cnn
from fedjax_mrl.protocol import (
    Algorithm,
    Batches,
    Client,
    ClientUpdate,
    Examples,
    Network,
    Setup,
    Visit,
)
from fedjax_mrl.simulation import population, rounds
from fedjax_mrl.simulation.settings import RoundConfig
from fedjax_mrl.simulation.state import State
from tests.helpers import SHARED

BASE = "fedmrl"  # the case that the small copies of others share arrays with
NAMES = (BASE, "fedmrl_clip", "fml", "standalone", "fedavg", "lg_fedavg", "fedproto")
NAMES += ("fd", "fedgh", "fedkd", "fedapen")
FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SHAPE = (32, 32, 3)
PARTS = ("conv1", "conv2", "fc1", "fc2", "fc3")
FEATURE_DIM = 12
HASHES = (2654435761, 2246822519, 3266489917)  # odd: no two positions share a weight


def full(name: str) -> pathlib.Path:
    """Where a full case lies, if it is there."""
    return SHARED / "golden" / f"{name}.npz"


def projections(tensor: np.ndarray) -> np.ndarray:
    """Three numbers that no wrong tensor is likely to share: [3], float64.

    They have the same bits on every machine: the weights are fractions of 2^32 from a
    multiplicative hash of the position, exact in float64, and the sum is rounded once.
    A product of matrices or NumPy's cosine would depend on the kind of CPU.
    """
    flat = np.asarray(tensor, np.float64).ravel()
    position = np.arange(1, flat.size + 1, dtype=np.uint64)
    hashed = [position * np.uint64(odd) % np.uint64(2**32) for odd in HASHES]
    return np.array([math.fsum(flat * (h / 2.0**31 - 1)) for h in hashed])


class Case:
    """One file, and a federation set up as it describes.

    Args:
        path: the npz.
        build: setup, options of the case -> algorithm.
        dtype: of all computations.
    """

    def __init__(
        self,
        path: pathlib.Path,
        build: Callable[[Setup, dict[str, Any]], Algorithm],
        dtype: Any,
    ) -> None:
        self.data = load(path)
        self.dtype = dtype
        self.options = {
            key[4:]: value.item()
            for key, value in self.data.items()
            if key.startswith("cfg.")
        }
        o = self.options
        self.setup = Setup(
            shared=lambda width: _cnn("shared", 4, 10, width),
            feature_dim=FEATURE_DIM,
            num_classes=o["num_classes"],
            optimizer=optimizers.sgd(
                o["lr"],
                momentum=o["momentum"],
                weight_decay=o["weight_decay"],
                clip_norm=o["clip"],
            ),
            prepare=images.prepare((0.0,) * 3, (1.0,) * 3, "raw"),
            num_rounds=o["rounds"],
        )
        known = {"A": _cnn("A", 6, 20, FEATURE_DIM), "B": _cnn("B", 4, 16, FEATURE_DIM)}
        self.models = [known[str(letter)] for letter in self.data["arch"]]
        self.algorithm = build(self.setup, o)
        self._clients: dict[str, Client] = {}
        self.clients = range(len(self.models))
        sizes = [len(self.data[f"data.c{k}.y"]) for k in self.clients]
        self.offsets = np.cumsum([0, *sizes])
        parts = [self.data[f"data.c{k}.x"] for k in self.clients]
        labels = [self.data[f"data.c{k}.y"] for k in self.clients]
        self.extra = [0] * len(sizes)
        if "data.c0.xa" in self.data:  # FedAPEN's adaptation samples come after
            parts += [self.data[f"data.c{k}.xa"] for k in self.clients]
            labels += [self.data[f"data.c{k}.ya"] for k in self.clients]
            self.extra = [len(self.data[f"data.c{k}.ya"]) for k in self.clients]
        self.examples = Examples(
            jnp.asarray(_pixels(np.concatenate(parts)), dtype),
            jnp.asarray(np.concatenate(labels), jnp.int32),
        )

    def array(self, key: str) -> jax.Array:
        """One array of the case in the working precision."""
        return jnp.asarray(self.data[key], self.dtype)

    def network(self, prefix: str) -> Network:
        """The network stored under `prefix`."""
        part = lambda name: {
            "kernel": self.array(f"{prefix}.{name}.w"),
            "bias": self.array(f"{prefix}.{name}.b"),
        }
        return Network({name: part(name) for name in PARTS[:-1]}, part("fc3"))

    def train(self) -> list[np.ndarray]:
        """Every client's training positions."""
        return [
            np.arange(self.offsets[k], self.offsets[k + 1], dtype=np.int32)
            for k in self.clients
        ]

    def holdout(self) -> list[np.ndarray]:
        """Every client's hold-out positions, empty in most cases."""
        start = self.offsets[-1] + np.cumsum([0, *self.extra])
        return [np.arange(start[k], start[k + 1], dtype=np.int32) for k in self.clients]

    def schedule(self, round: int, client: int) -> np.ndarray:
        """The given minibatches of a client's visit, as positions."""
        index = self.data[f"batches.r{round}.c{client}"]
        return np.where(index >= 0, index + self.offsets[client], -1).astype(np.int32)

    def participants(self, round: int) -> np.ndarray:
        """The given cohort."""
        return self.data[f"participants.r{round}"]

    def client(self, k: int) -> Client:
        """Client k as the algorithm builds it, its functions compiled once."""
        name = self.models[k].name
        if name not in self._clients:
            client = self.algorithm.client(self.models[k])
            self._clients[name] = client._replace(
                update=jax.jit(client.update),
                predict=jax.jit(client.predict),
                finish=client.finish and jax.jit(client.finish),
            )
        return self._clients[name]

    def update(self, round: int, k: int, broadcast: Any, state: Any) -> ClientUpdate:
        """One visit of client k; metrics cut to its own steps."""
        visit = self.visit(round, k)
        out = self.client(k).update(broadcast, state, visit, jax.random.key(0))
        steps = int(visit.train.steps)
        return out._replace(
            metrics={name: trace[:steps] for name, trace in out.metrics.items()}
        )

    def visit(self, round: int, k: int) -> Visit:
        """What client k works with in a round, in shapes that all clients share."""

        def rows(index, length):
            table = np.full((length, index.shape[1]), -1, np.int32)
            table[: len(index)] = index
            return Batches(jnp.asarray(table), jnp.int32(len(index)))

        return Visit(
            self.examples,
            rows(self.schedule(round, k), 6),
            rows(self.train()[k].reshape(-1, 8), 3),
            rows(self.holdout()[k].reshape(1, -1), 1),
            jnp.int32(round),
        )

    def held(self) -> jax.Array:
        """The held inputs [10, 32, 32, 3], the same for all clients."""
        return jnp.asarray(_pixels(self.data["data.held.x"]), self.dtype)

    def play(self, server: Any, states: list[Any]) -> list[State]:
        """Plays both rounds through the real round function from given states."""
        groups = population.assign(len(self.models), self.models)
        config = RoundConfig(
            seed=0,
            cohort_size=len(self.models),
            epochs=self.options["local_epochs"],
            batch_size=8,
            sweep_batch_size=8,
        )
        play = rounds.make(
            self.algorithm,
            groups,
            self.examples,
            self.train(),
            config,
            holdout=self.holdout(),
            sample=self.participants,
            schedule=self.schedule,
        )
        broadcast = self.algorithm.server.broadcast(server)
        stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        state = State(
            0,
            jax.tree.map(jnp.copy, server),
            {
                g.name: (
                    stack([states[k] for k in g.clients]),
                    stack([broadcast] * len(g.clients)),
                )
                for g in groups
            },
        )
        seen = []
        for _ in (1, 2):
            state, _ = play(state)
            seen.append(jax.device_get(state))
        self.groups = groups
        return seen

    def of_client(self, stacks: dict[str, Any], k: int) -> Any:
        """Client k's entry in stacks by group."""
        for group in self.groups:
            if k in group.clients:
                row = int(np.searchsorted(group.clients, k))
                return jax.tree.map(operator.itemgetter(row), stacks[group.name])
        raise KeyError(k)


class Difference:
    """Collects the largest deviations from a case, by name."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.found: dict[str, float] = {}

    def array(self, key: str, value: Any) -> None:
        """Compares one array, or its projections where only those are kept."""
        value = np.asarray(value, np.float64)
        if key in self.case.data:
            expected = self.case.data[key]
        else:
            expected, value = self.case.data[f"{key}.projections"], projections(value)
            # A projection adds up the deviations of many numbers.
            value = expected + (value - expected) / 16
        assert value.shape == expected.shape, key
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(value), finite, err_msg=key)
        gap = np.abs(np.where(finite, value, 0) - np.where(finite, expected, 0))
        self.found[key] = float(gap.max(initial=0))

    def network(self, prefix: str, network: Network) -> None:
        """Compares all parameters of a network."""
        for name in PARTS:
            part = network.header if name == "fc3" else network.extractor[name]
            self.array(f"{prefix}.{name}.w", part["kernel"])
            self.array(f"{prefix}.{name}.b", part["bias"])

    def check(self, atol: float, at_least: int) -> None:
        """Fails if anything deviates by more, or if too little was compared."""
        assert len(self.found) >= at_least, len(self.found)
        worst = max(self.found, key=lambda key: self.found[key])
        assert self.found[worst] <= atol, (worst, self.found[worst])


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a full case or of a small copy, by name."""
    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    if "same.names" in data:
        base = load(path.with_name(f"{BASE}.npz"))
        data |= {str(name): base[str(name)] for name in data.pop("same.names")}
    if "packed.values" in data:
        values, start = data.pop("packed.values"), 0
        for entry in data.pop("packed.names"):
            name, kind, *shape = str(entry).split()
            shape = tuple(map(int, shape))
            stop = start + math.prod(shape)
            data[name] = values[start:stop].reshape(shape).astype(kind)
            start = stop
    return data


def small(source: pathlib.Path) -> dict[str, np.ndarray]:
    """What the small copy of a full case holds, by name."""
    kept = {}
    for key, value in load(source).items():
        if key.startswith("dbg.") or ".gnorm." in key:
            continue
        if (key.endswith(".x") and key.startswith("data.")) or key.endswith(".xa"):
            scaled = np.round(value * 64)
            assert (scaled == value * 64).all()
            kept[key] = scaled.astype(np.int8)  # they lie in [-127, 127]
        elif key.startswith("init.") and ".eval" not in key:
            kept[key] = value.astype(np.float32)  # exact by construction
            assert (kept[key] == value).all()
        elif value.size > 16 and value.dtype == np.float64 and np.isfinite(value).all():
            kept[f"{key}.projections"] = projections(value)
        else:
            kept[key] = value
    return kept


def shrink(source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes the small copy of a case; that of FedMRL has to be there for the others.

    Hundreds of small arrays are packed into one: alone, each is a file in the archive.
    """
    kept, held = small(source), {}
    base = {} if target.stem == BASE else load(target.with_name(f"{BASE}.npz"))
    same = [key for key in kept if key in base and _equal(kept[key], base[key])]
    names, values = [], []
    for key, value in kept.items():
        if key in same:
            continue
        if value.dtype.kind in "if" and value.nbytes <= 1000:
            names.append(" ".join([key, value.dtype.str, *map(str, value.shape)]))
            values.append(value.astype(np.float64).ravel())
        else:
            held[key] = value
    if same:
        held["same.names"] = np.array(same)
    held |= {"packed.names": np.array(names), "packed.values": np.concatenate(values)}
    np.savez_compressed(target, **held)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


def _pixels(x: np.ndarray) -> np.ndarray:
    return x / 64 if x.dtype == np.int8 else x


def _cnn(name: str, channels: int, hidden: int, width: int):
    sizes = {"channels": (4, channels), "hidden": hidden, "feature_dim": width}
    return cnn.cnn(name, SHAPE, 10, **sizes)


def cases(name: str) -> list[pathlib.Path]:
    """The full case if it is there, else its small copy, which is always there."""
    path = full(name)
    return [path if path.exists() else FIXTURES / f"{name}.npz"]


if __name__ == "__main__":
    for name in NAMES:
        shrink(full(name), FIXTURES / f"{name}.npz")
