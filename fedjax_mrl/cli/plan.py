"""`fedjax-mrl plan`: the memory, traffic and time of a run; trains nothing."""

import argparse
import logging
import math
from typing import TYPE_CHECKING

from fedjax_mrl.cli import devices, options, plan_tables, plan_target
from fedjax_mrl.cli.command import Command, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.planning.plan import Plan

__all__ = ["plan"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory-gib",
        metavar="X",
        help="plan for so much memory, of the host or of each accelerator",
    )
    parser.add_argument(
        "--no-calibration",
        action="store_true",
        help="compute nothing, and leave out the time",
    )
    parser.add_argument(
        "--target",
        metavar="CHIP[:N]",
        help="plan for N chips that are not here: v5e, v6e (TPU) or h200; only their "
        'compiler is needed, from the extra "tpu" or "cuda"',
    )
    parser.add_argument("--out", metavar="DIR", help="as for run; nothing is written")
    parser.add_argument("--overwrite", action="store_true", help="as for run; ignored")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    devices.add(parser)
    options.add(parser)


def _execute(args: argparse.Namespace) -> int:
    with options.mistakes_are_usage_errors():
        config = options.resolve(args)
        limit = _limit(args.memory_gib)
        if args.distributed is not None:
            raise UsageError(
                "`plan` is about a single process; leave --distributed out."
            )
        devices.join(args)  # refuses what needs --distributed
        config = _with_noise(config, quiet=args.quiet)
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        if args.target is not None:
            return plan_target.execute(config, args.target, limit, quiet=args.quiet)
        devices.provide(config, keep=False)  # what compiling takes is measured
        devices.require()
        # Of the runner only its libraries, which a run holds in memory too.
        from fedjax_mrl.cli import console
        from fedjax_mrl.federation import Federation
        from fedjax_mrl.planning import plan as planning
        from fedjax_mrl.runs import runner  # noqa: F401

        federation = Federation(config, client_folder=args.out or "runs")
        calibrate = not args.no_calibration
        steps = len(federation.groups) * (1 + calibrate)
        with console.bar("plan", steps, "step", quiet=args.quiet) as bar:
            made = planning.make(
                federation, limit=limit, calibrate=calibrate, done=bar.update
            )
    if not args.quiet:
        console.tell(*federation.pieces.notes)
        title = f"{config.title}, {config.rounds} rounds"
        console.show(
            _groups(title, made),
            plan_tables.at_peak(made.memory),
            *_lines(config, made),
            *plan_tables.privacy(federation.pieces, config.rounds),
        )
    return 0


def _with_noise(config: "RunConfig", *, quiet: bool) -> "RunConfig":
    """The configuration with the noise that its epsilon takes, where it has one."""
    asked = config.privacy
    if asked is None or asked.epsilon is None:
        return config
    import dataclasses

    from fedjax_mrl.building import private
    from fedjax_mrl.privacy.account import Account

    account = Account(
        asked.clip, 0.0, asked.delta, config.sampling, private.rate(config)
    )
    noise = account.noise_for(asked.epsilon, config.rounds)
    dp = str(asked._replace(noise=noise, epsilon=None))
    if not quiet:
        print(f"For epsilon {asked.epsilon:g} after {config.rounds} rounds: --dp {dp}")
    return dataclasses.replace(config, dp=dp)


def _limit(word: str | None) -> int | None:
    """The bytes of so many GiB; None without a word."""
    if word is None:
        return None
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(f"--memory-gib must be a number above 0; got {word!r}.")
    return int(number * 2**30)


def _groups(title: str, made: "Plan") -> "Table":
    table = plan_tables.table(
        title,
        "architecture",
        "clients",
        "private\nparameters",
        "shared\nparameters",
        "MB of\na client",
        "working MB\non a device",
        "seconds\na visit",
    )
    for group in made.groups:
        table.add_row(
            group.name,
            str(group.clients),
            f"{group.private:,}",
            f"{group.shared:,}",
            f"{group.client_bytes / 1e6:.2f}",
            f"{group.working_bytes / 1e6:.1f}",
            "-" if group.seconds is None else f"{group.seconds:.2g}",
        )
    return table


def _lines(config: "RunConfig", made: "Plan") -> list[str]:
    memory = made.memory
    most = "at most " if made.at_most else ""
    place = (
        "of the host, whose memory the devices share"
        if memory.shares_host
        else "of a device"
    )
    known = "" if made.limit is None else f" of {made.limit / 2**30:.2f} GiB"
    size = f"{memory.peak / 2**30:.2f} GiB ({memory.peak / 1e6:.0f} MB)"
    held = config.held_out_clients
    lines = [
        f"participants  {made.cohort_size} of {config.num_training_clients} a round"
        + (f"; {held} held out" if held else ""),
        f"bytes down    {most}{made.down:,} a round",
        f"bytes up      {most}{made.up:,} a round",
        f"FLOPs         {made.flops:.4g} a round, without evaluation",
        f"memory        {size}{known} {place}",
    ]
    later = plan_tables.purposes(memory, held=False)
    if later:
        lines.append(f"(not at the peak: {', '.join(later)})")
    if made.seconds is None:
        return [*lines, "time          not calibrated"]
    hours = made.seconds * config.rounds / 3600
    return [
        *lines,
        f"time          {_two_digits(made.seconds)} s a round, {_two_digits(hours)} h "
        "in all, of training, measured now on this machine; compiling, evaluation, "
        "digests and checkpoints are extra",
    ]


def _two_digits(number: float) -> str:
    """A number of seconds or hours, to two digits."""
    return f"{float(f'{number:.2g}'):g}"


plan = Command("what a run would take; trains nothing", _configure, _execute)
