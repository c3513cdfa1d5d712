"""FedMRL whose server takes one participant's network instead of an average.

Clients are FedMRL's. Of the participants of a round one is drawn, all equally likely,
and its small model is what the server sends from then on:

    l_k   = m_lc CE(G^hd(R~_k[1 : d1]), y) + m_hf CE(F_k^hd(R~_k), y)
    theta = theta_j              j drawn from the participants, instead of their mean

That is what the authors' code computes (LipingYi/FedMRL at 8b90f41): its uploads are
references to one network, so that their average is the network of the participant that
trained last, in an order drawn at random in every round. The method measures what
published figures owe to it; it is `fedmrl` with `aggregation=last_client`.

Reference:
    Yi et al., Federated Model Heterogeneous Matryoshka Representation Learning,
    NeurIPS 2024. https://arxiv.org/abs/2406.00488

Differences:
    - An ablation: the paper averages, weighted by the numbers of training samples.
    - In the authors' code momentum of the small network and of the projector also
      leaks from one client to the next; here every visit begins without any.
"""

from fedjax_mrl.algorithms import fedmrl
from fedjax_mrl.protocol import Algorithm, Setup

__all__ = ["fedmrl_last_client"]


def fedmrl_last_client(
    setup: Setup,
    *,
    shared_dim: int = 100,
    coarse_weight: float = 1.0,
    fine_weight: float = 1.0,
) -> Algorithm:
    """Builds FedMRL in which a random participant's network wins each round.

    Args:
        setup: `setup.shared` makes the homogeneous small model.
        shared_dim: d1, width of its representation; at most that of any client.
        coarse_weight: m_lc, weight of the global header's loss.
        fine_weight: m_hf, weight of the local header's loss.

    Raises:
        ValueError: as `fedmrl` does.
    """
    return fedmrl.fedmrl(
        setup,
        shared_dim=shared_dim,
        coarse_weight=coarse_weight,
        fine_weight=fine_weight,
        aggregation="last_client",
    )
