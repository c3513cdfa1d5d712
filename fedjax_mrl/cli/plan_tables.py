"""The tables of `fedjax-mrl plan`, also of one for another machine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from fedjax_mrl.building.pieces import Pieces
    from fedjax_mrl.planning.memory import Memory


def table(title: str, *columns: str) -> "Table":
    """An empty table; its first column has words, the others numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made


def at_peak(memory: "Memory") -> "Table":
    """The memory at the peak by purpose, in MB whose rows and columns add up.

    CPUs share the memory of the host, so their column is of all of them, and a last one
    adds it to the host's. Other devices have their own, and the column is of each.
    """
    number = memory.num_devices
    whose = f"{'all' if memory.shares_host else 'each of'} {number} devices"
    columns = ["host", "device" if number == 1 else whose]
    columns += ["in all"] * memory.shares_host
    title = f"memory at the peak, {memory.moment}"
    shown = table(title, "MB", *columns)
    rows = {name: _tenths(memory, name) for name in purposes(memory, held=True)}
    for name, cells in rows.items():
        shown.add_row(name, *[f"{cell / 10:.1f}" if cell else "-" for cell in cells])
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    shown.add_section()
    shown.add_row("sum", *[f"{cell / 10:.1f}" for cell in sums])
    return shown


def purposes(memory: "Memory", *, held: bool) -> list[str]:
    """What memory is for: what is held at the peak, or only at other moments."""
    names = dict.fromkeys([*memory.host, *memory.device])
    size = lambda name: memory.host.get(name, 0) + memory.device.get(name, 0)
    return [name for name in names if (size(name) > 0) == held]


def _tenths(memory: "Memory", name: str) -> list[int]:
    """Tenths of MB of a purpose, for the columns of its row."""
    host, device = (part.get(name, 0) for part in (memory.host, memory.device))
    cells = [host, device * (memory.num_devices if memory.shares_host else 1)]
    rounded = [round(cell / 1e5) for cell in cells]
    return [*rounded, sum(rounded)] if memory.shares_host else rounded


def privacy(pieces: "Pieces", rounds: int) -> list[str]:
    """What so many rounds cost in privacy, and their noise; nothing without `--dp`."""
    from fedjax_mrl.privacy import account

    if pieces.account is None:
        return []
    lines = [f"privacy       {account.sentence(pieces.account.spent(rounds))}"]
    if pieces.noise is not None:
        lines.append(f"noise         a {pieces.noise}")
    return lines
