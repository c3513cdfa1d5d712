"""A method of one's own: a shared extractor, private headers, trained in turn.

    python -m experiments.examples.new_method [--rounds 10] [--out runs/in_turn.png]

As in FedRep, a client fits its header h_k to the extractor g that it received, and then
the extractor to that header, held near the one received:

    h_k = argmin CE(h(g(x)), y)
    g_k = argmin CE(h_k(g'(x)), y) + mu / 2 |g' - g|^2        g = sum_k n_k / n  g_k

Prints the table of `fm.compare` beside clients that learn alone, for two seeds.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

import fedjax_mrl as fm
from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, requirements, servers
from fedjax_mrl.protocol import Client, ClientUpdate, Network


class Part(NamedTuple):
    """Half of a network, as the one network that a client trains at a time."""

    value: Any


def in_turn(setup: fm.Setup, *, mu: float = 0.1) -> fm.Algorithm:
    """Builds the method; needs clients of one architecture."""
    common = setup.shared(setup.feature_dim)

    def client(model: fm.Model) -> Client:
        requirements.require_equal("in_turn", model, common)

        def init(key):
            return Part(model.init(rng.named(key, "private")).header)

        def update(broadcast, state, visit, key):
            def terms(extractor, header, batch, key, penalty=0.0):
                network = Network(extractor, header)
                output = model.training(key).logits(network, batch.x)
                entropy = losses.cross_entropy(output, batch.y, batch.mask)
                return losses.Terms(entropy + penalty, {"total": entropy + penalty})

            def first(trained, batch, key):
                return terms(broadcast.value, trained.value, batch, key)

            def second(trained, batch, key):
                moved = jax.tree.map(jnp.subtract, trained, broadcast)
                distance = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(moved))
                header, penalty = state.value, mu / 2 * distance
                return terms(trained.value, header, batch, key, penalty)

            one, two = rng.named(key, "header"), rng.named(key, "extractor")
            state, _, _ = local.train(first, state, setup, visit, one)
            shared, metrics, _ = local.train(second, broadcast, setup, visit, two)
            return ClientUpdate(state, shared, upload=shared, metrics=metrics)

        def predict(shared, state, x):
            return {"own": model.logits(Network(shared.value, state.value), x)}

        return Client(init, update, predict)

    server = servers.averaging(lambda key: Part(common.init(key).extractor))
    return fm.Algorithm(server, client, ("own",))


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line, or the words given instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", default="runs/in_turn.png", help="picture")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Compares over two seeds."""
    args = arguments(words)
    layers = [lambda x: x.reshape(len(x), -1), nn.Dense(64), nn.relu]
    model = fm.model(nn.Sequential(layers), name="small")
    setting = {"models": [model], "shared_model": model, "feature_dim": 64}
    split = {"num_clients": 10, "partition": "class:5", "limit_train": 300}
    work = {"rounds": args.rounds, "epochs": 5, "batch_size": 10}
    both = [in_turn, "standalone"]
    found = fm.compare(both, seeds=(0, 1), **setting, **split, **work)
    print(found.markdown())
    pathlib.Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    found.plot().savefig(args.out)


if __name__ == "__main__":
    main()
