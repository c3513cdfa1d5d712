"""Settings that JAX takes only before it is used for the first time."""

import argparse
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedjax_mrl.cli import defects
from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    from fedjax_mrl.config import RunConfig

# How a run ends in all of its processes: done, diverged. Or stopped by a signal, which
# is above 128.
_AGREED = (0, 3)
HEARTBEAT = 30  # seconds; JAX's own default is 100


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
    group.add_argument(
        "--heartbeat-timeout",
        metavar="SECONDS",
        help=f"how long one may be silent before the others end (default {HEARTBEAT})",
    )


def join(args: argparse.Namespace) -> bool:
    """Joins the other processes if asked to, and says whether this one writes files.

    Raises:
        UsageError: for numbers that do not fit, or if the others cannot be reached.
    """
    numbers = {
        "num_processes": "num_processes",
        "process_id": "process_id",
        "heartbeat_timeout": "heartbeat_timeout_seconds",
    }
    given = {name: getattr(args, name) for name in numbers}
    given = {name: word for name, word in given.items() if word is not None}
    if args.distributed is None:
        if given:
            flag = next(iter(given)).replace("_", "-")
            raise UsageError(f"--{flag} needs --distributed.")
        return True
    import jax

    known = {"heartbeat_timeout_seconds": HEARTBEAT}
    if args.distributed != "auto":
        known["coordinator_address"] = args.distributed
    for name, word in given.items():
        least = 0 if name == "process_id" else 1
        if not (word.isascii() and word.isdecimal()) or int(word) < least:
            flag = name.replace("_", "-")
            raise UsageError(
                f"--{flag} takes a whole number from {least}; got {word!r}."
            )
        known[numbers[name]] = int(word)
    # It would swallow SIGTERM while nobody asks it; this program has its own answer.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**known)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise UsageError(
            f"The processes cannot be joined: {' '.join(str(error).split())[:300]} "
            "Give --distributed HOST:PORT --num-processes N --process-id I."
        ) from None
    args.joined_as = jax.process_index()  # for `ends_for_all`
    return args.joined_as == 0


def ends_for_all(
    execute: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """Wraps a command so that no process waits for one that has ended.

    JAX's own way out waits until all processes take it. One that ends alone, for a
    mistake, a full disk or a lost process, leaves at once instead: the others notice
    by their next exchange, or without process 0 by JAX itself.
    """

    @functools.wraps(execute)
    def run(args: argparse.Namespace) -> int:
        args.joined_as = None
        try:
            status = execute(args)
        except BaseException as error:
            if args.joined_as is None:
                raise
            status = _explain(error)
        else:
            if args.joined_as is None or status in _AGREED or status > 128:
                return status
        sys.stdout.flush()
        sys.stderr.flush()
        if args.joined_as == 0:
            # JAX aborts the others when process 0 is gone; first they may say what
            # ails them and leave by themselves.
            time.sleep(2)
        os._exit(status)

    return run


def _explain(error: BaseException) -> int:
    """Prints one message, or where a mistake of ours lies; returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        status, text = 130, "Interrupted."
    elif isinstance(error, UsageError):
        status, text = 2, str(error)
    elif isinstance(error, defects.Defect):
        defects.show(error)
        status, text = 1, str(error)
    else:
        status, text = 1, lost(error)
    if text is None:
        traceback.print_exception(error)
    else:
        print(f"fedjax-mrl: {text}", file=sys.stderr)
    return status


def lost(error: BaseException) -> str | None:
    """The message for an error by which another process was lost; else None.

    A save that another process was lost in fails as one of a disk does, and has what
    JAX said as its cause.
    """
    import jax

    def of_jax(one: BaseException) -> bool:  # some of its errors have another type
        return isinstance(one, jax.errors.JaxRuntimeError) or "by peer" in str(one)

    said: BaseException | None = error
    while said is not None and not of_jax(said):
        said = said.__cause__ or said.__context__
    if said is None or jax.process_count() == 1:
        return None
    reason = " ".join(str(said).split())[:200]
    return (
        f"Another of the {jax.process_count()} processes ended or cannot be reached "
        f"({reason}). Complete checkpoints are kept. Go on, in any number of "
        "processes, with: fedjax-mrl resume"
    )


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


def provide(config: "RunConfig", *, keep: bool = True) -> None:
    """Makes the CPU devices, by default one a core, and sets flags that a run asks for.

    Only effective before the first use of a device; a notebook sets them itself.

    Args:
        config: of the run.
        keep: whether compiled programs are kept for the next process.
    """
    _make(config)
    if keep:
        from fedjax_mrl import program_cache

        reason = program_cache.use()
        if reason is not None:
            print(f"fedjax-mrl: {reason}", file=sys.stderr)


def _make(config: "RunConfig") -> None:
    if config.deterministic:
        flag = "--xla_gpu_deterministic_ops=true"
        flags = os.environ.get("XLA_FLAGS", "")
        if flag not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    number = config.devices or cores
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    # One device a core, each computing alone, is faster than one that uses all. The
    # variable is XLA's number of threads, which is at least that of devices; with a
    # single thread some sums had another order on CPUs with AVX-512.
    os.environ.setdefault("NPROC", "1" if number > 1 else str(max(cores, 2)))
    import jax

    if number > 1:
        try:
            jax.config.update("jax_num_cpu_devices", number)
        except RuntimeError:
            return  # the devices are there already; too few are refused later


def none() -> None:
    """Keeps JAX on the CPU of this machine, for work that needs no other device.

    Only effective before the first use of a device.
    """
    import jax

    jax.config.update("jax_platforms", "cpu")


def require() -> None:
    """Refuses a machine on which JAX finds no device, before anything is written.

    Raises:
        DeviceError: as `environment.devices`; it names the remedy.
    """
    from fedjax_mrl.runs import environment

    environment.devices()
