"""Settings that JAX takes only before it is used for the first time."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig


def provide(config: "RunConfig") -> None:
    """Makes the CPU devices and sets the flags that a run asks for.

    Only effective before the first use of a device; a notebook sets them itself.
    """
    if config.deterministic:
        flag = "--xla_gpu_deterministic_ops=true"
        held = os.environ.get("XLA_FLAGS", "")
        if flag not in held:
            os.environ["XLA_FLAGS"] = f"{held} {flag}".strip()
    import jax

    if config.devices > 1 and "JAX_NUM_CPU_DEVICES" not in os.environ:
        try:
            jax.config.update("jax_num_cpu_devices", config.devices)
        except RuntimeError:
            return  # the devices are there already; too few are refused later
