"""How clients are laid out over devices: one axis, and who works where."""

import heapq

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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


def over_clients(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, OVER_CLIENTS)


def everywhere(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, EVERYWHERE)


def assign(
    costs: np.ndarray, busy: np.ndarray, capacity: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Deals members to devices so that none waits long for another.

    The longest member goes to the least busy device that has room, and so on. Within
    a device, members with similar work stand together.

    Args:
        costs: of each member, any unit.
        busy: [D], what each device has to do already, in the same unit.
        capacity: members a device can take; D times it must be enough.

    Returns:
        For each device the places of its members in `costs`, and how busy it is then.
    """
    after = np.array(busy, float)
    free = [(float(load), device) for device, load in enumerate(after)]
    heapq.heapify(free)
    dealt: list[list[int]] = [[] for _ in free]
    for place in np.argsort(-np.asarray(costs), kind="stable"):
        load, device = heapq.heappop(free)
        dealt[device].append(int(place))
        after[device] = load + float(costs[place])
        if len(dealt[device]) < capacity:
            heapq.heappush(free, (after[device], device))
    return [np.array(places, np.int32) for places in dealt], after
