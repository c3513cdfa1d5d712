"""How clients are laid out over devices: along one axis."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_mrl.protocol import Tree

AXIS = "clients"
OVER_CLIENTS = PartitionSpec(AXIS)
EVERYWHERE = PartitionSpec()


def mesh(num_devices: int = 0) -> Mesh:
    """Devices in a row along the client axis.

    Args:
        num_devices: how many, of all processes together; 0 is all there are.

    Raises:
        ValueError: if there are fewer, or if some process would have none.
    """
    found = jax.devices()
    number = num_devices or len(found)
    if number > len(found):
        raise ValueError(
            f"--devices {number} needs as many devices; {len(found)} are visible "
            f"({found[0].platform}). Lower --devices; on a CPU the environment "
            f"variable JAX_NUM_CPU_DEVICES={number} makes them."
        )
    if number < len(found) and jax.process_count() > 1:
        raise ValueError(
            f"Several processes use all of their {len(found)} devices; got --devices "
            f"{number}. Give --devices 0."
        )
    return Mesh(np.array(found[:number]), (AXIS,))


def shapes(values: Tree, placed: NamedSharding) -> Tree:
    """Shapes of arrays that lie so, of arrays or shapes; for devices not here too."""
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)
    return jax.tree.map(shape, values)


def over_clients(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, OVER_CLIENTS)


def everywhere(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, EVERYWHERE)
