"""FML: federated mutual learning.

A participant k forks the server's model w as its meme and trains it beside its
personal model, which may have any architecture and never leaves. On every minibatch
each of the two learns from the labels and from the other's predictions (deep mutual
learning). The server merges the memes:

    w_meme_k   = w                                        fork
    L_personal = alpha CE(p_personal, y) + (1 - alpha) KL(p_meme || p_personal)
    L_meme     = beta  CE(p_meme, y)     + (1 - beta)  KL(p_personal || p_meme)
    w          = 1/K sum_k w_meme_k                       merge, over K participants

A teacher's predictions are constants to its pupil; alpha and beta may change over the
rounds. Clients with different tasks (heterogeneous objectives) share only the meme's
extractor and keep its header. Inference is the personal model.

Reference:
    Shen et al., Federated Mutual Learning, 2020. https://arxiv.org/abs/2006.16765

Differences:
    - Personal and meme model take their gradients at the same point of a step.
    - A client that does not take part keeps its personal model until its next visit.
"""

from typing import NamedTuple

from fedjax_mrl import rng
from fedjax_mrl.learning import local, losses, mutual, schedules, servers, sharing
from fedjax_mrl.learning.mutual import Trained
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


class ClientState(NamedTuple):
    """The part of a client that never leaves it."""

    private: Network  # personal model
    meme_header: Params = ()  # only where tasks differ and memes keep their headers


def fml(
    setup: Setup,
    *,
    alpha: schedules.Weight = 0.5,
    beta: schedules.Weight = 0.5,
    aggregation: str = "uniform",
    share: str = "network",
) -> Algorithm:
    """Builds FML.

    The weights of the labels are numbers, "linear:START:END" (START in round 1, END
    from round `setup.num_rounds` on), or functions of the round, counted from 1.

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
    parting = sharing.get(share)
    alphas = schedules.weights("alpha", alpha, setup.num_rounds)
    betas = schedules.weights("beta", beta, setup.num_rounds)
    meme_model = setup.shared(setup.feature_dim)

    def client(personal_model: Model) -> Client:
        sharing.require_task(parting, personal_model, setup)

        def logits(personal, meme, networks, x):
            features = meme.features(networks.shared.extractor, x)
            return (
                personal.logits(networks.private, x),
                parting.head(meme)(networks.shared.header, features),
            )

        def update(broadcast, state, visit, key):
            def loss(networks, batch, key):
                models = mutual.training(personal_model, meme_model, key)
                personal, meme = logits(*models, networks, batch.x)
                a = schedules.of_round(alphas, visit.round, personal.dtype)
                b = schedules.of_round(betas, visit.round, meme.dtype)
                ce_p, ce_m, kl_p, kl_m = mutual.losses_of(personal, meme, batch)
                L_personal = a * ce_p + (1 - a) * kl_p
                L_meme = b * ce_m + (1 - b) * kl_m
                total = L_personal + L_meme
                metrics = {"total": total, "personal": L_personal, "meme": L_meme}
                metrics |= {"ce_personal": ce_p, "ce_meme": ce_m}
                metrics |= {"kl_personal": kl_p, "kl_meme": kl_m}
                return losses.Terms(total, metrics)

            fork = Trained(parting.join(broadcast, state.meme_header), state.private)
            networks, metrics, _ = local.train(loss, fork, setup, visit, key)
            meme, header = parting.split(networks.shared)
            state = ClientState(networks.private, header)
            return ClientUpdate(state, meme, meme, metrics)

        def predict(meme, state, x):
            networks = Trained(parting.join(meme, state.meme_header), state.private)
            personal, merged = logits(personal_model, meme_model, networks, x)
            return {"personal": personal, "global": merged}

        def init(key):
            private = personal_model.init(rng.named(key, "private"))
            header = parting.init_kept(meme_model, personal_model.num_classes, key)
            return ClientState(private, header)

        return Client(init, update, predict)

    def init_meme(key):
        return parting.split(meme_model.init(rng.named(key, "shared")))[0]

    server = servers.averaging(init_meme, aggregation)
    return Algorithm(server, client, heads=("personal", "global"))
