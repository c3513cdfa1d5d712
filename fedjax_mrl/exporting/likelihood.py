"""Probabilities of classes from logits, whatever head they come from."""

import numpy as np

from fedjax_mrl.exporting.error import ExportError


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax, which is 0 for a class that a head knows nothing of.

    Of heads whose logits are no log-probabilities, such as minus the distance to a
    prototype, it orders classes as the logits do, but is flat: it is no estimate of how
    often the head is right.

    Args:
        logits: [B, L], `protocol.UNKNOWN` for such a class.

    Returns:
        float64 [B, L]; rows sum to 1. Where no class is known all are 1 / L.

    Raises:
        ExportError: for logits that are not finite.
    """
    logits = np.asarray(logits, np.float64)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=-1))
    if bad.size:
        raise ExportError(
            f"The logits of example {bad[0]} are not finite: the model diverged, or "
            "the example has numbers or tokens that it was never trained on."
        )
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)
