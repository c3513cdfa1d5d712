"""Chooses the store that a configuration names."""

import pathlib

import jax
from jax.sharding import Mesh

from fedjax_mrl.stores.base import KINDS, Store
from fedjax_mrl.stores.device import DeviceStore
from fedjax_mrl.stores.disk import DiskStore
from fedjax_mrl.stores.host import HostStore


def resolve(kind: str, mesh: Mesh) -> str:
    """Replaces `auto`: the host for several devices of one CPU, else the devices.

    Devices of a CPU share its memory, so a copy costs less than an exchange.

    Raises:
        ValueError: for an unknown kind, or files in several processes.
    """
    if kind not in KINDS:
        raise ValueError(f"--client-store must be one of {KINDS}; got {kind!r}.")
    if kind == "disk" and jax.process_count() > 1:
        raise ValueError(
            "--client-store disk works in one process; got "
            f"{jax.process_count()}. Use device, which is split over the processes."
        )
    if kind != "auto":
        return kind
    several = mesh.size > 1 and jax.process_count() == 1
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return "host" if several and on_cpu else "device"


def make(kind: str, mesh: Mesh, folder: pathlib.Path | None = None) -> Store:
    """The store of a kind.

    Args:
        kind: one of `KINDS`.
        mesh: the devices that states are split over.
        folder: where a store on the disk has its files.

    Raises:
        ValueError: as `resolve`, or if the folder is missing.
    """
    kind = resolve(kind, mesh)
    if kind == "device":
        return DeviceStore(mesh)
    if kind == "host":
        return HostStore(mesh)
    if folder is None:
        raise ValueError(
            "--client-store disk needs a folder for its files; give client_folder."
        )
    return DiskStore(mesh, folder)
