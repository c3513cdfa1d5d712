"""`fedjax-mrl plan --target`: a run on a machine that is not here."""

from typing import TYPE_CHECKING

from fedjax_mrl.cli import console, devices, plan_tables
from fedjax_mrl.cli.command import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from fedjax_mrl.config import RunConfig
    from fedjax_mrl.planning.afar import Afar
    from fedjax_mrl.planning.target import Target


def execute(config: "RunConfig", word: str, limit: int | None, *, quiet: bool) -> int:
    """Plans, and prints the plan; returns the exit status.

    Args:
        config: of the run.
        word: the target, as `planning.target.parse` reads it.
        limit: bytes of memory of each device; None is the chip's.
        quiet: print nothing but errors.

    Raises:
        ValueError: for what cannot be run or planned, or does not fit.
    """
    devices.none()
    from fedjax_mrl.planning import afar, subject, target

    wanted = target.parse(word)
    if config.devices not in (0, wanted.number):
        raise UsageError(
            f"--target {word} has {wanted.number} devices; got --devices "
            f"{config.devices}. Give --devices 0, or --target "
            f"{wanted.name}:{config.devices}."
        )
    planned = subject.Elsewhere(config, target.mesh(wanted))
    limit = wanted.chip.memory if limit is None else limit
    number = len(planned.groups)
    with console.bar("plan", number, "program", quiet=quiet) as bar:
        made = afar.make(planned, limit, done=bar.update)
    if not quiet:
        console.tell(*planned.pieces.notes)
        title = f"{config.title} on {wanted}; by the compiler, not measured"
        tables = _programs(title, made, wanted), plan_tables.at_peak(made.memory)
        private = plan_tables.privacy(planned.pieces, config.rounds)
        console.show(*tables, *_lines(made, wanted), *private)
    return 0


def _programs(title: str, made: "Afar", wanted: "Target") -> "Table":
    table = plan_tables.table(
        title,
        "architecture",
        "clients",
        "at once\non a device",
        "seconds to\ncompile here",
        "working MB\non a device",
        "GFLOP\na step",
        "GB accessed\na step",
        "ms of these\nat full speed",
        "ms by the\ncompiler",
    )
    for group in made.groups:
        account = group.account
        model = _number(account.model_seconds, 1e-3)
        more = "> " if account.model_seconds and account.unmodelled else ""
        table.add_row(
            group.name,
            str(group.clients),
            str(group.together),
            f"{account.seconds:.0f}",
            f"{account.working_bytes / 1e6:.1f}",
            _number(account.flops, 1e9),
            _number(account.bytes_accessed, 1e9),
            _number(wanted.chip.seconds(account.flops, account.bytes_accessed), 1e-3),
            more + model,
        )
    return table


def _number(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.3g}"


def _lines(made: "Afar", wanted: "Target") -> list[str]:
    chip, limit = wanted.chip, made.limit
    whose = chip.memory_source if limit == chip.memory else "--memory-gib"
    return [
        f"memory        {_gib(made.memory.peak)} of {_gib(limit)} of each device "
        f"({whose})",
        f"full speed    {chip.bandwidth / 1e9:.0f} GB/s, {chip.peak / 1e12:.0f} "
        f"TFLOP/s of bfloat16 ({chip.speed_source})",
        "A model of the compiler, not measured: a step is of all clients that are "
        "computed at once, with loops inside of it counted once, and > has parts that "
        "the compiler has no time for. Programs that test clients are not compiled, "
        "and the memory of the machine that the chips are in is not known.",
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
