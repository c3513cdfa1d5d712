"""FedMRL without nesting: the global header reads all of the fused vector as well.

Networks, fusion and server are FedMRL's, and there are two headers and two losses, but
no coarse view: both headers read the whole of the fused representation, so that nothing
tells its first coordinates from the others.

    R~_k = P_k([G^ex(x) ; F_k^ex(x)])
    l_k  = m_lc CE(G^hd(R~_k), y) + m_hf CE(F_k^hd(R~_k), y)

It is `fedmrl` with `readout=full`. Beside `fedmrl` it tells what nesting is worth,
beside `fedmrl_no_mrl` what the shared header and its loss are worth. The global header
is wider than FedMRL's, so more travels.

Reference:
    Yi et al., Federated Model Heterogeneous Matryoshka Representation Learning,
    NeurIPS 2024. https://arxiv.org/abs/2406.00488

Differences:
    - An ablation of the method; not in the paper, whose own has no global header.
"""

from fedjax_mrl.algorithms import fedmrl
from fedjax_mrl.protocol import Algorithm, Setup

__all__ = ["fedmrl_no_mrl_full"]


def fedmrl_no_mrl_full(
    setup: Setup,
    *,
    shared_dim: int = 100,
    coarse_weight: float = 1.0,
    fine_weight: float = 1.0,
    aggregation: str = "mean",
) -> Algorithm:
    """Builds FedMRL with both headers on the whole fused vector.

    Args:
        setup: `setup.shared` makes the homogeneous small model.
        shared_dim: d1, width of its representation; at most that of any client.
        coarse_weight: m_lc, weight of the global header's loss.
        fine_weight: m_hf, weight of the local header's loss.
        aggregation: `mean`, `uniform` or `last_client`, see `servers.averaging`.

    Raises:
        ValueError: as `fedmrl` does, and, when a client is built, for a model of
            another width than `setup.feature_dim`.
    """
    return fedmrl.fedmrl(
        setup,
        shared_dim=shared_dim,
        coarse_weight=coarse_weight,
        fine_weight=fine_weight,
        aggregation=aggregation,
        readout="full",
    )
