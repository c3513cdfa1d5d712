"""The table of a preset: what was measured here beside the paper's figures."""

import csv
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_mrl import references
from fedjax_mrl.config import RunConfig
from fedjax_mrl.reproducing import ahead, parts, results
from fedjax_mrl.reproducing.ahead import Repeat
from fedjax_mrl.reproducing.parts import Part, Progress
from fedjax_mrl.reproducing.preset import Preset, Scale
from fedjax_mrl.reproducing.results import Result
from fedjax_mrl.runs import comparison, grid_columns
from fedjax_mrl.runs.comparison import Run

COLUMNS = (
    *("setting", "algorithm", "options", "head", "seeds", "rounds"),
    *("last", "last_sd", "last10", "last10_sd", "best", "best_sd"),
    *("clients_ahead", "rounds_to_target", "mb_to_target", "tflop_to_target"),
    *("paper", "paper_verified", "difference", "expected", "expected_sd", "status"),
)


class Cell(NamedTuple):
    """Repeats of one configuration of a setting, in one inference mode.

    Attributes:
        setting: name of the configuration.
        algorithm: short name of the method.
        options: what is swept, and its values.
        head: inference mode; "" where nothing was run.
        rounds: of each run.
        results: of the repeats that are done.
        paths: their folders, by repeat.
        status: "done", or how many repeats are.
    """

    setting: str
    algorithm: str
    options: tuple[tuple[str, Any], ...]
    head: str
    rounds: int
    results: list[Result]
    paths: Mapping[Repeat, pathlib.Path]
    status: str

    @property
    def label(self) -> str:
        """A short name for pictures."""
        values = [
            f"{column.rpartition('.')[2]} {grid_columns.text(value)}"
            for column, value in self.options
            if value != ""
        ]
        return ", ".join([self.algorithm, *values])


def cells(
    preset: Preset,
    scale: Scale,
    planned: Sequence[Part],
    progress: Callable[[Run], Progress],
) -> list[Cell]:
    """All cells of a table, in the order of the preset, those not run too."""
    found = []
    for part in planned:
        grouped: dict[Any, list[Run]] = {}
        for run in part.runs:
            grouped.setdefault(parts.cell_key(run, part.swept), []).append(run)
        for (algorithm, options), runs in grouped.items():
            short = references.short(algorithm)
            empty = Cell(part.name, short, options, "", 0, [], {}, "")
            known = [(run, progress(run)) for run in runs]
            target = scale.target.get(part.name)
            found += _filled(empty, known, heads=preset.heads, target=target)
    return found


def _filled(
    empty: Cell,
    known: Sequence[tuple[Run, Progress]],
    *,
    heads: bool,
    target: float | None,
) -> list[Cell]:
    """A cell with its repeats: one for each inference mode that is wanted."""
    rounds = known[0][0].config.rounds
    paths = {
        _repeat(run.config): far.path for run, far in known if far.path is not None
    }
    made = empty._replace(rounds=rounds, paths=paths, status=_status(known))
    by_head: dict[str, list[Result]] = {}
    for path in paths.values():
        for result in results.read(path, rounds, heads=heads, target=target):
            by_head.setdefault(result.head, []).append(result)
    found = [made._replace(head=head, results=r) for head, r in by_head.items()]
    return found or [made]


def _repeat(config: RunConfig) -> Repeat:
    initial = -1 if config.init_seed is None else config.init_seed
    return config.data_seed, config.seed, initial


def _status(known: Sequence[tuple[Run, Progress]]) -> str:
    done = sum(far.path is not None for _, far in known)
    if done == len(known):
        taken = {str(far.path.parent) for _, far in known if far.taken and far.path}
        return f"done (from {', '.join(sorted(taken))})" if taken else "done"
    if done:
        return f"{done} of {len(known)} repeats"
    run, far = max(known, key=lambda each: each[1].rounds)
    return far.words(run.config.rounds)


def rows(preset: Preset, scale: Scale, found: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row for each cell, accuracies in per cent; "" for what is not known."""
    made = []
    for cell in found:
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        row |= {
            "setting": cell.setting,
            "algorithm": cell.algorithm,
            "options": _options(cell),
            "head": cell.head,
            "seeds": len(cell.results),
            "rounds": cell.rounds,
            "status": cell.status,
        }
        for name in ("last", "last10", "best"):
            values = [100 * getattr(result, name) for result in cell.results]
            if values:
                row[name] = round(float(np.mean(values)), 3)
            if len(values) > 1:
                row[f"{name}_sd"] = round(float(np.std(values, ddof=1)), 3)
        row |= _costs(cell)
        row["clients_ahead"] = ahead.share(preset, cell, found)
        row |= _beside(preset, scale, cell, row["best"])
        made.append(row)
    return made


def _options(cell: Cell) -> str:
    """What is swept, with its values; the method's default where none was given."""
    said = [(column, value, "") for column, value in cell.options if value != ""]
    try:
        (known,) = comparison.hyperparameters([cell.algorithm]).values()
    except ValueError:
        known = {}  # a function of the user's own
    for column, value in cell.options:
        default = known.get(column.rpartition(".")[2])
        if value == "" and default is not None:
            said.append((column, default, " (default)"))
    return "; ".join(f"{name}={grid_columns.text(v)}{end}" for name, v, end in said)


def _costs(cell: Cell) -> dict[str, Any]:
    """Mean costs to the target, of the repeats that reached it, if all did."""
    reached = [r.reached for r in cell.results if r.reached is not None]
    if not reached or len(reached) < len(cell.results):
        return {}
    return {
        "rounds_to_target": round(float(np.mean([r["rounds"] for r in reached])), 1),
        "mb_to_target": round(float(np.mean([r["bytes"] for r in reached])) / 1e6, 3),
        "tflop_to_target": round(
            float(np.mean([r["flops"] for r in reached])) / 1e12, 3
        ),
    }


def _beside(preset: Preset, scale: Scale, cell: Cell, best: Any) -> dict[str, Any]:
    """The paper's figure, the difference to it, and what was measured here before."""
    row: dict[str, Any] = {}
    paper = preset.paper.get(cell.setting, {}).get(cell.algorithm)
    if paper is not None:
        row |= {"paper": paper.value, "paper_verified": str(paper.verified).lower()}
        if best != "":
            row["difference"] = round(best - paper.value, 3)
    known = scale.expected.get(cell.setting, {}).get(cell.algorithm)
    if known is not None:
        row["expected"] = known.mean
        row["expected_sd"] = "" if known.sd is None else known.sd
    return row


def to_csv(made: Sequence[Mapping[str, Any]]) -> str:
    """The text of table.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(made)
    return text.getvalue()


_SHOWN = {
    "setting": "setting",
    "algorithm": "algorithm",
    "options": "options",
    "head": "head",
    "rounds": "rounds",
    "seeds": "repeats",
    "last": "last",
    "last10": "last 10",
    "best": "best",
    "clients_ahead": "clients ahead of {versus}",
    "rounds_to_target": "rounds to target",
    "mb_to_target": "MB to target",
    "tflop_to_target": "TFLOP to target",
    "paper": "paper",
    "difference": "best minus paper",
    "expected": "best, measured before",
    "status": "status",
}
_ALWAYS = (
    "setting",
    "algorithm",
    "rounds",
    "last",
    "last10",
    "best",
    "paper",
    "status",
)


def to_markdown(
    preset: Preset, scale: Scale, made: Sequence[Mapping[str, Any]], command: str
) -> str:
    """The text of table.md: what is repeated and how, and the table.

    Args:
        preset: of the table.
        scale: which of its scales.
        made: as of `rows`.
        command: that writes it.
    """
    used = [
        name
        for name in _SHOWN
        if name in _ALWAYS or any(row[name] not in ("", 0) for row in made)
    ]
    titles = [_SHOWN[name].format(versus=preset.versus) for name in used]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    lines += [
        "| " + " | ".join(_shown(row, name) for name in used) + " |" for row in made
    ]
    done = sum(row["status"].startswith("done") for row in made)
    said = {
        "Repeats": preset.repeats,
        f"Scale {scale.name}": scale.differs,
        "Hardware of the times": preset.hardware,
        "Time": scale.time,
        "Paper's figures": preset.source
        or ("" if preset.paper else "none is known as a number"),
        "Command": f"`{command}`",
    }
    notes = [f"{name}: {text}" for name, text in said.items() if text]
    notes += [
        "Accuracies are means over clients of the local test accuracy before "
        "aggregation, in per cent, with the standard deviation over repeats.",
        f"{done} of {len(made)} rows are complete.",
    ]
    if any(row["paper_verified"] == "false" for row in made):
        notes.append("A figure in brackets is quoted from memory and unverified.")
    text = "\n".join(f"- {note}" for note in notes)
    return f"# {preset.title}\n\n{text}\n\n" + "\n".join(lines) + "\n"


def _shown(row: Mapping[str, Any], name: str) -> str:
    """A cell of the markdown table."""
    value = row[name]
    if name in ("last", "last10", "best", "expected") and value != "":
        sd = row[f"{name}_sd"]
        return f"{value:.2f}" + (f" ± {sd:.2f}" if sd != "" else "")
    if name == "paper" and value != "":
        return f"{value:.2f}" if row["paper_verified"] == "true" else f"({value:.2f})"
    if name == "difference" and value != "":
        return f"{value:+.2f}"
    return "-" if value == "" or (name, value) == ("seeds", 0) else str(value)
