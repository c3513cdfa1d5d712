"""A transformer and a bag of embeddings learn together from tokens.

    python -m experiments.examples.tokens [--rounds 8]

Each sequence has a few tokens that its class likes, among noise. Even clients have a
small transformer (Flax linen), odd ones a mean of embeddings and a dense layer (Flax
nnx), and each sees mostly some of the classes. Prints the mean test accuracy of each
architecture after its own training, with FedMRL and with FML.
"""

import argparse
from collections.abc import Sequence

import jax
import numpy as np
from flax import linen as nn
from flax import nnx

import fedjax_mrl as fm

TOKENS, LENGTH, CLASSES, LIKED = 64, 16, 6, 5


class Transformer(nn.Module):
    """One block of attention, and the mean over places."""

    feature_dim: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps tokens [B, T] to a representation [B, feature_dim]."""
        places = self.param("places", nn.initializers.normal(0.1), (x.shape[1], 32))
        h = nn.Embed(TOKENS, 32)(x) + places[None]
        h = h + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(h))
        h = nn.Dropout(0.1, deterministic=not train)(nn.LayerNorm()(h).mean(axis=1))
        return nn.Dense(self.feature_dim)(h)


class Bag(nnx.Module):
    """The mean of embeddings, and one layer."""

    def __init__(self, rngs: nnx.Rngs, feature_dim: int = 32):
        self.embed = nnx.Embed(TOKENS, 32, rngs=rngs)
        self.layer = nnx.Linear(32, feature_dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens [B, T] to a representation [B, feature_dim]."""
        return nnx.relu(self.layer(self.embed(x).mean(axis=1)))


def sequences(count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [count, LENGTH] and their classes [count]."""
    y = draw.integers(0, CLASSES, count)
    liked = LIKED * y[:, None] + draw.integers(0, LIKED, (count, LENGTH))
    noise = draw.integers(0, TOKENS, (count, LENGTH))
    return np.where(draw.random((count, LENGTH)) < 0.2, liked, noise), y


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Trains by each method and prints a line for it."""
    args = arguments(words)
    draw = np.random.default_rng(0)
    data = fm.arrays(*sequences(1200, draw), *sequences(600, draw), name="sequences")
    found = fm.compare(
        ["fedmrl", "fml"],
        models=[fm.model(Transformer()), fm.model(Bag)],  # client k has entry k mod 2
        shared_model=fm.model(Bag),  # made at the width that FedMRL asks for
        shared_dim=8,  # of FedMRL alone
        dataset=data,
        partition="dirichlet:0.5",
        num_clients=6,
        rounds=args.rounds,
        epochs=3,
        batch_size=16,
        learning_rate=0.05,
    )
    for (algorithm, _), history in found.histories.items():
        table = history.frame("clients")
        table = table[table["round"] == history.last_round]
        last = table[(table["point"] == "local") & (table["head"] == history.heads[0])]
        means = last.groupby("architecture")["accuracy"].mean()
        print(f"{algorithm:8}", means.round(4).to_dict())


if __name__ == "__main__":
    main()
