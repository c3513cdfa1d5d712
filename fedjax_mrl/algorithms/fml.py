"""FML: federated mutual learning.

A participant forks the server's model as its meme and trains it beside its
personal model, which may have any architecture and never leaves. On every
minibatch each of the two learns from the labels and from the other's predictions
(deep mutual learning). The server merges the memes. Clients with different tasks
(heterogeneous objectives) share only the meme's extractor and keep their headers.

Reference:
    Shen et al., Federated Mutual Learning, 2020. https://arxiv.org/abs/2006.16765

Differences:
    - Personal and meme model take their gradients at the same point of a step.
    - A client that does not take part keeps its personal model until its next visit.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, servers
from fedjax_mrl.models import layers
from fedjax_mrl.protocol import (
    Algorithm,
    Client,
    ClientUpdate,
    Model,
    Network,
    Params,
    Setup,
)

__all__ = ["fml"]

Schedule = float | str | Callable[[int], float]


class ClientState(NamedTuple):
    """What never leaves a client."""

    private: Network  # personal model
    meme_header: Params = ()  # only where tasks differ and memes keep their headers


class Trained(NamedTuple):
    """What a client's optimizer moves, each part clipped by itself."""

    shared: Network  # meme
    private: Network


def fml(
    setup: Setup,
    *,
    alpha: Schedule = 0.5,
    beta: Schedule = 0.5,
    aggregation: str = "uniform",
    share: str = "network",
) -> Algorithm:
    """Builds FML.

    The weights of the labels may change over the rounds. They are given as a
    number, as "linear:START:END" (START in round 1, END in round
    `setup.num_rounds`, and from there on), or as a function from the round,
    counted from 1, to a number.

    Args:
        setup: `setup.shared` makes the meme model, at width `setup.feature_dim`.
        alpha: weight of the labels in the personal model's loss, in [0, 1]; the rest
            goes to the meme's predictions. 1 trains it alone.
        beta: the same for the meme; 1 trains it as FedAvg would.
        aggregation: `uniform` is the method, `mean` weights memes by training
            samples, see `servers.averaging`.
        share: `network`, the whole meme travels; `extractor`, only its extractor
            does, and clients may have different classes (`population.Group.labels`).

    Raises:
        ValueError: for a weight outside of [0, 1], an unknown aggregation or share,
            or, when a client is built, a task that a shared header does not fit.
    """
    if share not in ("network", "extractor"):
        raise ValueError(f"share must be network or extractor; got {share!r}.")
    keeps_header = share == "extractor"
    alphas = _by_round("alpha", alpha, setup.num_rounds)
    betas = _by_round("beta", beta, setup.num_rounds)
    shared = setup.shared(setup.feature_dim)

    def client(model: Model) -> Client:
        if not keeps_header and model.num_classes != setup.num_classes:
            raise ValueError(
                f"A shared meme has {setup.num_classes} classes, but the task of "
                f"{model.name} has {model.num_classes}; clients with tasks of their "
                "own need share=extractor."
            )

        def meme_logits(network, x):
            # A linear header of as many classes as the client's task has.
            features = shared.features(network.extractor, x)
            return layers.linear(network.header, features)

        def received(broadcast, state):
            if keeps_header:
                return broadcast._replace(header=state.meme_header)
            return broadcast

        def update(broadcast, state, visit, key):
            def loss(networks, batch, key):
                del key  # not stochastic
                personal = model.logits(networks.private, batch.x)
                meme = meme_logits(networks.shared, batch.x)
                fixed_personal, fixed_meme = lax.stop_gradient((personal, meme))
                ce_personal = losses.cross_entropy(personal, batch.y, batch.mask)
                ce_meme = losses.cross_entropy(meme, batch.y, batch.mask)
                kl_personal = losses.kl(fixed_meme, personal, batch.mask)
                kl_meme = losses.kl(fixed_personal, meme, batch.mask)
                a = _at(alphas, visit.round, personal.dtype)
                b = _at(betas, visit.round, meme.dtype)
                of_personal = a * ce_personal + (1 - a) * kl_personal
                of_meme = b * ce_meme + (1 - b) * kl_meme
                total = of_personal + of_meme
                metrics = {
                    "total": total,
                    "personal": of_personal,
                    "meme": of_meme,
                    "ce_personal": ce_personal,
                    "ce_meme": ce_meme,
                    "kl_personal": kl_personal,
                    "kl_meme": kl_meme,
                }
                return losses.Terms(total, metrics)

            start = Trained(received(broadcast, state), state.private)
            networks, metrics, _ = local.train(loss, start, setup, visit, key)
            meme, header = networks.shared, ()
            if keeps_header:
                meme, header = meme._replace(header=()), meme.header
            return ClientUpdate(
                ClientState(networks.private, header), meme, meme, metrics
            )

        def predict(network, state, x):
            return {
                "personal": model.logits(state.private, x),
                "global": meme_logits(received(network, state), x),
            }

        def init(key):
            private = model.init(rng.named(key, "private"))
            if not keeps_header:
                return ClientState(private)
            header = layers.init_linear(
                rng.named(key, "meme header"), shared.feature_dim, model.num_classes
            )
            return ClientState(private, header)

        return Client(init, update, predict)

    def init_meme(key):
        network = shared.init(rng.named(key, "shared"))
        return network._replace(header=()) if keeps_header else network

    server = servers.averaging(init_meme, aggregation)
    return Algorithm(server, client, heads=("personal", "global"))


def _by_round(name: str, value: Schedule, num_rounds: int) -> np.ndarray:
    """A schedule's values in rounds 1, 2, ...: [max(num_rounds, 1)]."""
    length = max(num_rounds, 1)
    if callable(value):
        values = np.array([float(value(t)) for t in range(1, length + 1)])
    else:
        text = str(value)
        try:
            if text.startswith("linear:"):
                start, end = map(float, text.removeprefix("linear:").split(":"))
            else:
                start = end = float(text)
        except ValueError:
            start = end = np.nan  # refused below
        values = np.linspace(start, end, length)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"{name} must be in [0, 1] in every round; got {value!r}. Give a number "
            "such as 0.5, linear:START:END such as linear:0.2:0.8, or a function of "
            "the round."
        )
    return values


def _at(values: np.ndarray, round: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(values, dtype)[jnp.clip(round - 1, 0, len(values) - 1)]
