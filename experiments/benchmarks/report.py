"""Tables and pictures of what was measured."""

import importlib.metadata
import os
import pathlib
import platform
import statistics
from typing import Any, NamedTuple

PACKAGES = ("jax", "jaxlib", "torch", "torchvision", "numpy")
UNITS = {"ms": 1e3, "s": 1.0, "MB": 1e-6}  # of costs in seconds or bytes


class Table(NamedTuple):
    """Some contenders that did the same.

    Attributes:
        title: what they did.
        costs: contender -> cost of each repetition, in seconds or bytes.
        unit: one of `UNITS`, in which costs are shown.
        baseline: the contender that ratios refer to; None for no ratios.
        x: contender -> place on a horizontal axis; None draws bars.
        x_label: what the axis is.
        notes: lines below the table.
    """

    title: str
    costs: dict[str, list[float]]
    unit: str = "s"
    baseline: str | None = None
    x: dict[str, float] | None = None
    x_label: str = ""
    notes: tuple[str, ...] = ()

    def medians(self) -> dict[str, float]:
        """Contender -> median cost, in seconds or bytes."""
        return {name: statistics.median(found) for name, found in self.costs.items()}

    def markdown(self) -> str:
        """Medians, spread and ratios."""
        ratios = self.baseline is not None
        lines = [f"### {self.title}", ""]
        heads = ["", f"median, {self.unit}", "min to max"]
        heads += [f"times {self.baseline}"] if ratios else []
        lines += [_row(heads), _row(["---"] * len(heads))]
        medians, scale = self.medians(), UNITS[self.unit]
        for name, found in self.costs.items():
            spread = f"{_short(min(found) * scale)} to {_short(max(found) * scale)}"
            cells = [name, _short(medians[name] * scale), spread]
            if ratios:
                cells.append(f"{medians[name] / medians[self.baseline]:.2f}")
            lines.append(_row(cells))
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes), ""])


def machine() -> dict[str, Any]:
    """Cores that may be used, the processor's name, and versions."""
    return {
        "cores": cores(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def picture(path: pathlib.Path, tables: list[Table]) -> None:
    """Draws medians with their spread as a PNG, one panel a table."""
    # No pyplot: it would keep figures and a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [1.5 + (2.5 if t.x else 0.3 * len(t.costs)) for t in tables]
    figure = Figure(figsize=(8, sum(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=rows)[:, 0]
    for panel, table in zip(panels, tables, strict=True):
        scale = UNITS[table.unit]
        names = list(table.costs)
        middle = [table.medians()[name] * scale for name in names]
        found = [[cost * scale for cost in table.costs[name]] for name in names]
        spread = [
            [m - min(f) for m, f in zip(middle, found, strict=True)],
            [max(f) - m for m, f in zip(middle, found, strict=True)],
        ]
        if table.x:
            places = [table.x[name] for name in names]
            panel.errorbar(places, middle, spread, marker="o", capsize=3)
            panel.set_xscale("log", base=2)
            panel.set_xticks(places, [f"{place:g}" for place in places])
            panel.set_xlabel(table.x_label)
            panel.set_ylabel(table.unit)
            panel.set_ylim(bottom=0)
        else:
            panel.barh(names, middle, xerr=spread, capsize=3, color="tab:blue")
            panel.invert_yaxis()
            panel.set_xlabel(table.unit)
        panel.set_title(table.title, fontsize="medium")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
