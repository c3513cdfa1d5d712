"""Machines that a run can be planned for without having them."""

import importlib.util
import os
import types
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from fedjax_mrl import discovery, sharding


class TargetError(ValueError):
    """No plan can be made for the machine; says in one sentence what to do."""


class Chip(NamedTuple):
    """One accelerator.

    Attributes:
        title: its name in words.
        platform: JAX's name of its kind.
        memory: bytes that programs can have, and
        memory_source: who says so.
        bandwidth: of that memory, in bytes a second.
        peak: of products of bfloat16, in FLOP/s.
        speed_source: who says both.
        topologies: number of chips on one host -> how XLA calls them.
        install: what pip is given to bring the compiler.
        modules: any of which is the compiler.
    """

    title: str
    platform: str
    memory: int
    memory_source: str
    bandwidth: float
    peak: float
    speed_source: str
    topologies: Mapping[int, str]
    install: str
    modules: tuple[str, ...]

    def seconds(
        self, flops: float | None, bytes_accessed: float | None
    ) -> float | None:
        """That so much takes at full speed, whichever of both is slower, if known.

        Products are taken as of bfloat16.
        """
        if flops is None or bytes_accessed is None:
            return None
        return max(flops / self.peak, bytes_accessed / self.bandwidth)


class Target(NamedTuple):
    """Some chips of one kind, on one host."""

    name: str
    chip: Chip
    number: int

    def __str__(self) -> str:
        return f"{self.number} x {self.chip.title}"


_GIB = 2**30
_ON_ONE_HOST = types.MappingProxyType({1: "1x1", 4: "2x2", 8: "2x4"})
_LIBTPU = "jax[tpu]", ("libtpu",)
# What XLA asks a GPU for, as an H200 answers.
_H200 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
 shared_memory_per_block: 49152 shared_memory_per_core: 233472
 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
 memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
 device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
 cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
 registers_per_block_limit: 65536 } platform_name: "CUDA"
 dnn_version_info { major: 9 minor: 10 } device_description_str: "NVIDIA H200" """

CHIPS: Mapping[str, Chip] = types.MappingProxyType(
    {
        "v5e": Chip(
            "TPU v5e",
            "tpu",
            int(15.75 * _GIB),
            "what libtpu's compiler lets a program have of 16 GB",
            819e9,
            197e12,
            "Cloud TPU documentation, v5e",
            _ON_ONE_HOST,
            *_LIBTPU,
        ),
        "v6e": Chip(
            "TPU v6e",
            "tpu",
            int(31.25 * _GIB),
            "what libtpu's compiler lets a program have of 32 GB",
            1638e9,
            918e12,
            "Cloud TPU documentation, v6e",
            _ON_ONE_HOST,
            *_LIBTPU,
        ),
        "h200": Chip(
            "NVIDIA H200",
            "gpu",
            int(0.75 * 141e9),
            "three quarters of 141 GB, which JAX takes by default",
            4.8e12,
            989e12,
            "NVIDIA's data sheet, SXM, without sparsity",
            types.MappingProxyType({n: f"1x1x{n}" for n in (1, 2, 4, 8)}),
            "jax[cuda13]",
            ("jax_cuda13_plugin", "jax_cuda12_plugin"),
        ),
    }
)


def parse(word: str) -> Target:
    """Reads `CHIP` or `CHIP:N`.

    Raises:
        TargetError: for a chip that is not known, or a number of them that no host has.
    """
    name, colon, number = word.partition(":")
    if name not in CHIPS:
        raise TargetError(discovery.unknown("target", name, CHIPS))
    chip = CHIPS[name]
    known = chip.topologies
    whole = number.isascii() and number.isdecimal()
    count = (int(number) if whole else 0) if colon else 1
    if count not in known:
        raise TargetError(
            f"--target {name}:N takes {', '.join(map(str, known))} as the number of "
            f"chips on one host; got {word!r}."
        )
    return Target(name, chip, count)


def mesh(target: Target) -> Mesh:
    """The chips, described to their compiler, along the axis of clients.

    Programs can be compiled for them and never run. JAX's own platform stays.

    Raises:
        TargetError: if the compiler is not installed, or does not know the chip.
    """
    chip = target.chip
    if not any(importlib.util.find_spec(name) for name in chip.modules):
        raise TargetError(
            f"--target {target.name} compiles with {chip.modules[0]}, which is not "
            f'installed. Install it with: python -m pip install "{chip.install}". No '
            f"{chip.title} is needed."
        )
    from jax.experimental import topologies

    try:
        if chip.platform == "tpu":
            found = _tpu(target)
        else:
            found = topologies.get_topology_desc(
                target.name,
                "cuda",
                target_config=_H200,
                topology=chip.topologies[target.number],
            )
    except (RuntimeError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise TargetError(
            f"The compiler that is installed cannot describe {target} ({said}). "
            f'Upgrade it: python -m pip install --upgrade "{chip.install}"'
        ) from error
    return Mesh(np.array(found.devices), (sharding.AXIS,))


def _tpu(target: Target):
    from jax.experimental import topologies

    topology = target.chip.topologies[target.number]
    bounds = tuple(map(int, topology.split("x")))
    # Else libtpu asks the cloud, which a laptop is not in, and warns of no answer; and
    # it refuses a second process, though none of them opens a chip.
    quiet = {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{target.name}-{target.number}",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    return topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{target.name}:{topology}",
        chips_per_host_bounds=(*bounds, 1),
    )
