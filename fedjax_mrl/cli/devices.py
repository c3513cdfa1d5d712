"""Settings that JAX takes only before it is used for the first time."""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the flags by which several processes play one run."""
    group = parser.add_argument_group("several processes (each is started by itself)")
    group.add_argument(
        "--distributed",
        metavar="HOST:PORT",
        nargs="?",
        const="auto",
        help="join the others at process 0; TPU pods and Slurm need no address",
    )
    group.add_argument("--num-processes", metavar="N", help="how many there are")
    group.add_argument("--process-id", metavar="I", help="which this is, from 0")


def join(args: argparse.Namespace) -> bool:
    """Joins the other processes, if asked to; whether this one writes the files.

    Raises:
        UsageError: for numbers that do not fit, or if the others cannot be reached.
    """
    if args.distributed is None:
        if args.num_processes is not None or args.process_id is not None:
            raise UsageError("--num-processes and --process-id need --distributed.")
        return True
    import jax

    known = {}
    if args.distributed != "auto":
        known["coordinator_address"] = args.distributed
    for name in ("num_processes", "process_id"):
        word = getattr(args, name)
        if word is not None:
            if not word.isdecimal():
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} takes a whole number; got {word!r}.")
            known[name] = int(word)
    try:
        jax.distributed.initialize(**known)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"The processes cannot be joined: {' '.join(str(error).split())[:300]} "
            "Give --distributed HOST:PORT --num-processes N --process-id I."
        ) from None
    return jax.process_index() == 0


def agreed(stop: Callable[[], int | None]) -> Callable[[], int | None]:
    """Lets all processes stop after the same round, whichever got the signal."""
    import jax

    if jax.process_count() == 1:
        return stop

    def ask() -> int | None:
        import numpy as np
        from jax.experimental import multihost_utils

        mine = np.int32(stop() or 0)
        return int(multihost_utils.process_allgather(mine).max()) or None

    return ask


def provide(config: "RunConfig") -> None:
    """Makes the CPU devices, by default one a core, and sets flags that a run asks for.

    Only effective before the first use of a device; a notebook sets them itself.
    """
    if config.deterministic:
        flag = "--xla_gpu_deterministic_ops=true"
        held = os.environ.get("XLA_FLAGS", "")
        if flag not in held:
            os.environ["XLA_FLAGS"] = f"{held} {flag}".strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    number = config.devices or cores
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    # One device a core, each computing alone, is faster than one that uses all. The
    # variable is XLA's number of threads, which is at least that of devices; with a
    # single thread some sums would have another order.
    os.environ.setdefault("NPROC", "1" if number > 1 else str(max(cores, 2)))
    import jax

    if number > 1:
        try:
            jax.config.update("jax_num_cpu_devices", number)
        except RuntimeError:
            return  # the devices are there already; too few are refused later
