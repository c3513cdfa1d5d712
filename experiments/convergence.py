"""Mean squared gradient norm of FedMRL against the number of rounds T.

    python -m experiments.convergence [--rounds 200] [--out DIR] [--picture FILE]

The paper proves that the mean of the squared gradient norms over T rounds is at most
c / T plus a term that a small learning rate makes small. Here ten clients with two
architectures train small ReLU networks, a non-convex problem, on scikit-learn's digits,
by plain SGD. Before every round the gradient of every client's whole training loss is
taken at the networks that its visit would begin with: the small model as the server
sends it, the private model and the projector. Two norms are told apart:

    global   ||sum_k p_k grad_theta l_k||^2 + sum_k p_k ||grad_private l_k||^2
    local    ||...||^2 inside of the sum for theta too: sum_k p_k ||grad l_k||^2

with p_k = n_k / n. The first is how fast a small step of all lowers what all train
together, sum_k p_k l_k; it is zero where averaging of whole gradients rests. The second
is what the clients see of their own losses. It is the larger one by the variance of
the clients' gradients of the small model.

Writes convergence.csv, and the picture of docs/findings.md.
"""

import argparse
import csv
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_mrl as fm
from fedjax_mrl import algorithms
from fedjax_mrl.algorithms.fedmrl import Trained
from fedjax_mrl.learning import optimizers
from fedjax_mrl.models import mlp
from fedjax_mrl.protocol import Batches, Visit
from fedjax_mrl.runs import pictures
from fedjax_mrl.simulation.state import State

TARGET = pathlib.Path(__file__).resolve().parent / "results"
PICTURE = TARGET.parents[1] / "docs" / "convergence.png"
COLUMNS = ("case", "rounds", "loss", "global", "local", "mean_global", "mean_local")
DIM, WIDTH = 8, 16  # d1 and d2
FULL = 2000  # a batch that holds all examples of a client


class Case(NamedTuple):
    """One curve: how it trains, and on what.

    Attributes:
        name: a phrase.
        learning_rate: of plain SGD.
        batch_size: examples of a step.
        partition: who has which examples.
        algorithm: FedMRL, or with another server.
    """

    name: str
    learning_rate: float
    batch_size: int
    partition: str
    algorithm: str = "fedmrl"


CASES = (
    Case("whole gradients, even data", 0.1, FULL, "iid"),
    Case("whole gradients, 2 classes a client", 0.1, FULL, "class:2"),
    Case("batches of 16, even data", 0.01, 16, "iid"),
    Case("batches of 16, even data, rate / 8", 0.00125, 16, "iid"),
    Case("batches of 16, 2 classes a client", 0.01, 16, "class:2"),
    Case("last client, 2 classes a client", 0.01, 16, "class:2", "fedmrl_last_client"),
)


class Norms(NamedTuple):
    """Of the gradient at one point: the loss, and both squared norms."""

    loss: float
    whole: float
    local: float


def small(hidden: int) -> Callable[..., fm.Model]:
    """A perceptron with `hidden` units, then d2 of its representation."""

    def network(input_shape, num_classes, feature_dim=WIDTH) -> fm.Model:
        return mlp.mlp(input_shape, num_classes, feature_dim=feature_dim, hidden=hidden)

    network.__name__ = f"small{hidden}"
    return network


def federation(case: Case, rounds: int) -> fm.Federation:
    """Ten clients of two architectures, all taking part, plain SGD."""
    return fm.Federation(
        algorithm=case.algorithm,
        models=[small(32), small(16)],
        shared_model=lambda shape, classes, feature_dim=DIM: small(16)(
            shape, classes, feature_dim
        ),
        shared_dim=DIM,
        feature_dim=WIDTH,
        num_clients=10,
        partition=case.partition,
        rounds=rounds,
        batch_size=case.batch_size,
        learning_rate=case.learning_rate,
        momentum=0.0,
        weight_decay=0.0,
        clip_norm=0.0,
        augmentation="none",
        eval_every=rounds,
        devices=1,
    )


def prober(made: fm.Federation) -> Callable[[State], Norms]:
    """Returns what takes the gradients at a state.

    A visit of one step of rate 1 over all examples is minus the gradient: so it is that
    of the very code that trains.
    """
    plain = optimizers.sgd(1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.0)
    setup = made.setup._replace(optimizer=plain)
    method = algorithms.build("fedmrl", setup, shared_dim=DIM)
    sizes = np.array([part.size for part in made.train])
    index = np.full((sizes.size, 1, sizes.max()), -1, np.int32)
    for row, part in zip(index, made.train, strict=True):
        row[0, : part.size] = part

    def gradient_of(update):
        def gradient(broadcast, state, index):
            table = Batches(index, jnp.int32(1))
            visit = Visit(made.examples, table, table, table, jnp.int32(1))
            out = update(broadcast, state, visit, jax.random.key(0))
            after = Trained(out.upload, *out.state)
            step = jax.tree.map(jnp.subtract, Trained(broadcast, *state), after)
            return step, out.metrics["total"][0]

        return jax.jit(jax.vmap(gradient, in_axes=(None, 0, 0)))

    programs = {
        group.name: gradient_of(method.client(group.model).update)
        for group in made.groups
    }

    def norms(state: State) -> Norms:
        arrays = made.arrays(state)
        shared, found = [], np.zeros(3)
        for group in made.groups:
            step, loss = programs[group.name](
                arrays["server"], arrays["clients"][group.name], index[group.clients]
            )
            share = sizes[group.clients] / sizes.sum()
            own = _squares((step.private, step.projector))
            found += [
                share @ np.asarray(loss),
                share @ own,
                share @ (own + _squares(step.shared)),
            ]
            shared.append(jax.tree.map(lambda g, p=share: (g.T @ p).T, step.shared))
        total = jax.tree.map(lambda *parts: sum(parts), *shared)
        found[1] += float(_square(total))
        return Norms(*found.tolist())

    return norms


def _squares(step: Any) -> np.ndarray:
    """Squared norms of stacked gradients [N, ...], one for each client."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(step)]
    return sum((leaf.reshape(len(leaf), -1) ** 2).sum(axis=1) for leaf in leaves)


def _square(step: Any) -> float:
    """Squared norm of one gradient."""
    return sum(float((np.asarray(g, float) ** 2).sum()) for g in jax.tree.leaves(step))


def play(case: Case, rounds: int) -> Iterator[Norms]:
    """The norms before every round of a case."""
    made = federation(case, rounds)
    norms = prober(made)
    state = made.init()
    for _ in range(rounds):
        yield norms(state)
        state, _ = made.play(state)


def rows(case: Case, found: Sequence[Norms]) -> list[dict[str, Any]]:
    """What is written of a case: at about twenty numbers of rounds, evenly in log T."""
    whole = np.cumsum([norm.whole for norm in found])
    local = np.cumsum([norm.local for norm in found])
    places = np.unique(np.geomspace(1, len(found), 20).round().astype(int))
    return [
        {
            "case": case.name,
            "rounds": place,
            "loss": f"{found[place - 1].loss:.6g}",
            "global": f"{found[place - 1].whole:.6g}",
            "local": f"{found[place - 1].local:.6g}",
            "mean_global": f"{whole[place - 1] / place:.6g}",
            "mean_local": f"{local[place - 1] / place:.6g}",
        }
        for place in places.tolist()
    ]


def slope(written: Sequence[dict[str, Any]], column: str) -> float:
    """Exponent of T that fits the last quarter of the rounds, in log T."""
    last = max(row["rounds"] for row in written)
    late = [row for row in written if row["rounds"] >= last / 4]
    rounds, values = zip(*((r["rounds"], float(r[column])) for r in late), strict=True)
    return float(np.polyfit(np.log(rounds), np.log(values), 1)[0])


def line(written: Sequence[dict[str, Any]]) -> str:
    """The row of docs/findings.md of one case."""
    last = written[-1]
    peak = max(float(row["global"]) for row in written)
    words = [
        last["case"],
        f"{slope(written, 'mean_global'):.2f}",
        f"{slope(written, 'mean_local'):.2f}",
        f"{float(written[0]['global']):.2f}",
        f"{peak:.1f}",
        f"{float(last['global']):.2g}",
        f"{float(last['loss']):.2g}",
    ]
    return "| " + " | ".join(words) + " |"


def draw(written: Sequence[dict[str, Any]]) -> Any:
    """Both means against T, with a line of c / T."""
    figure = pictures.empty(11, 5)
    panels = figure.subplots(1, 2)
    for axes, column, title in zip(
        panels,
        ("mean_global", "mean_local"),
        ("gradient of what all train together", "gradients of the clients' own losses"),
        strict=True,
    ):
        for name in dict.fromkeys(row["case"] for row in written):
            own = [row for row in written if row["case"] == name]
            rounds = [row["rounds"] for row in own]
            values = [float(row[column]) for row in own]
            (line,) = axes.loglog(rounds, values, marker=".", label=name)
            if name == CASES[0].name:
                axes.loglog(
                    rounds,
                    values[-1] * rounds[-1] / np.array(rounds),
                    color=line.get_color(),
                    linestyle=":",
                    label="c / T",
                )
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("rounds T")
        axes.set_ylabel("mean over rounds of the squared gradient norm")
        axes.grid(alpha=0.3, which="both")
    panels[0].legend(fontsize="x-small")
    return figure


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=pathlib.Path, default=TARGET)
    parser.add_argument("--picture", type=pathlib.Path, default=PICTURE)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Writes the table and the picture; prints the rows of docs/findings.md."""
    args = arguments(words)
    written: list[dict[str, Any]] = []
    for case in CASES:
        own = rows(case, list(play(case, args.rounds)))
        written += own
        print(line(own), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "convergence.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(written)
    draw(written).savefig(args.picture)


if __name__ == "__main__":
    main()
