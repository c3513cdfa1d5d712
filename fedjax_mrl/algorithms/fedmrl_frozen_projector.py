"""FedMRL with a frozen projector: each visit and each test has the initial one.

Networks, fusion, both losses and the server are FedMRL's. The projector that a client
keeps is the one that it was initialised with, phi_k^0, whatever a visit does to it:

    l_k = m_lc CE(G^hd(R~_k[1 : d1]), y) + m_hf CE(F_k^hd(R~_k), y)
    (theta_k, omega_k, phi_k) <- local epochs from (theta, omega_k, phi_k^0)
    phi_k = phi_k^0              what the visit made of the projector is dropped

So a test, before aggregation or after it, reads networks that were trained beside one
projector through another one. With `projector="fixed"` phi_k^0 is not trained within a
visit either: gradient, clipping and weight decay do not see it, and a test reads the
networks through the projector that they were trained with.

The first is what the FedMRL of the library HtFLlib computes (clientmrl.py at e959261):
its optimizer moves the projector, and after local training the private and the small
model are saved but the projector is not, so that each round and each evaluation loads
the initial one.

Reference:
    Yi et al., Federated Model Heterogeneous Matryoshka Representation Learning,
    NeurIPS 2024. https://arxiv.org/abs/2406.00488

Differences:
    - An ablation: in the paper the projector persists.
    - HtFLlib weights participants equally (`aggregation="uniform"`), trains by plain
      SGD and draws every client a projector of its own;
      here only the projector's fate differs from `fedmrl`.
"""

from fedjax_mrl.algorithms import fedmrl
from fedjax_mrl.protocol import Algorithm, Client, Model, Setup

__all__ = ["fedmrl_frozen_projector"]


def fedmrl_frozen_projector(
    setup: Setup,
    *,
    shared_dim: int = 100,
    coarse_weight: float = 1.0,
    fine_weight: float = 1.0,
    aggregation: str = "mean",
    projector: str = "forgotten",
) -> Algorithm:
    """Builds FedMRL whose clients keep their initial projector.

    Args:
        setup: `setup.shared` makes the homogeneous small model.
        shared_dim: d1, width of its representation; at most that of any client.
        coarse_weight: m_lc, weight of the global header's loss.
        fine_weight: m_hf, weight of the local header's loss.
        aggregation: `mean`, `uniform` or `last_client`, see `servers.averaging`.
        projector: `forgotten` trains it during a visit and then drops what became of
            it; `fixed` never trains it.

    Raises:
        ValueError: for another value of `projector`, and as `fedmrl` does.
    """
    if projector not in ("forgotten", "fixed"):
        raise ValueError(f"projector must be forgotten or fixed; got {projector!r}.")
    method = fedmrl.fedmrl(
        setup,
        shared_dim=shared_dim,
        coarse_weight=coarse_weight,
        fine_weight=fine_weight,
        aggregation=aggregation,
    )

    def client(model: Model) -> Client:
        trained = method.client(model)

        def update(broadcast, state, visit, key):
            if projector == "fixed":
                visit = visit._replace(frozen=(visit.frozen, state.projector))
            out = trained.update(broadcast, state, visit, key)
            return out._replace(state=out.state._replace(projector=state.projector))

        return trained._replace(update=update)

    return method._replace(client=client)
