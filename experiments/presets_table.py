"""Writes the table of presets in docs/reproduce.md from the presets themselves.

    python -m experiments.presets_table

A test compares the page with what this module generates.
"""

import pathlib

from experiments.findings_table import between
from fedjax_mrl.reproducing import parts, preset
from fedjax_mrl.reproducing.preset import Preset, Scale

TARGET = pathlib.Path(__file__).resolve().parents[1] / "docs" / "reproduce.md"
START, END = "<!-- presets -->\n", "<!-- end of presets -->\n"


def generate() -> str:
    """The table, a row for each preset."""
    lines = [
        "| preset | repeats | laptop: runs, time | full: runs, time | figures of the "
        "paper | measured here |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in preset.names():
        found = preset.get(name)
        figures = [f for values in found.paper.values() for f in values.values()]
        unverified = sum(not figure.verified for figure in figures)
        known = f"{len(figures)}" if figures else "none as a number"
        known += f", {unverified} unverified" if unverified else ""
        measured = [scale.name for scale in found.scales.values() if scale.expected]
        row = [
            f"`{name}`",
            found.repeats,
            *(_size(found, found.scales[scale]) for scale in ("laptop", "full")),
            known,
            ", ".join(measured) or "not run",
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _size(found: Preset, scale: Scale) -> str:
    """How many runs a scale needs, and how long they are expected to take."""
    planned = parts.plan(found, scale, pathlib.Path("none"))
    cells = [(part, run) for part in planned for run in part.runs]
    held = parts.first_rounds(cells)
    runs = [run for _, run in cells if run.path not in held]
    seconds = sum(parts.seconds(scale, run.config) or 0 for run in runs)
    return f"{len(runs)}, {seconds / 3600:.1f} h"


def page(text: str) -> str:
    """The page with the table brought up to date."""
    return between(text, START, generate(), END)


if __name__ == "__main__":
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {TARGET.name}")
