"""FedMRL without Matryoshka learning: the local header alone reads the fused vector.

Networks, fusion and server are FedMRL's, but there is no global header and no coarse
view. Only the small model's extractor travels, and it learns through the projector:

    R~_k = P_k([G^ex(x) ; F_k^ex(x)])
    l_k  = m_hf CE(F_k^hd(R~_k), y)

It is `fedmrl` with `readout=local`, and how the paper's study of the method without
Matryoshka learning is understood here. `fedmrl_no_mrl_full` keeps the global header.

Reference:
    Yi et al., Federated Model Heterogeneous Matryoshka Representation Learning,
    NeurIPS 2024. https://arxiv.org/abs/2406.00488

Differences:
    - An ablation of the method.
"""

from fedjax_mrl.algorithms import fedmrl
from fedjax_mrl.protocol import Algorithm, Setup

__all__ = ["fedmrl_no_mrl"]


def fedmrl_no_mrl(
    setup: Setup,
    *,
    shared_dim: int = 100,
    fine_weight: float = 1.0,
    aggregation: str = "mean",
) -> Algorithm:
    """Builds FedMRL without a global header.

    Args:
        setup: `setup.shared` makes the homogeneous small model.
        shared_dim: d1, width of its representation; at most that of any client.
        fine_weight: m_hf, weight of the local header's loss, which is the only one.
        aggregation: `mean`, `uniform` or `last_client`, see `servers.averaging`.

    Raises:
        ValueError: as `fedmrl` does.
    """
    return fedmrl.fedmrl(
        setup,
        shared_dim=shared_dim,
        fine_weight=fine_weight,
        aggregation=aggregation,
        readout="local",
    )
