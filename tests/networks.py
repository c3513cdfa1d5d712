"""A network for command lines: small, and the same in this process and in others."""

from fedjax_mrl.models import mlp
from fedjax_mrl.protocol import Model

SMALL = "tests.networks:small"


def small(input_shape, num_classes, *, feature_dim: int = 8) -> Model:
    """The perceptron with 16 hidden units, where `mlp` has 512."""
    made = mlp.mlp(input_shape, num_classes, feature_dim=feature_dim, hidden=16)
    return made._replace(name="small")
